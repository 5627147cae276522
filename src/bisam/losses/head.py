"""The loss of a linear head, chunk by chunk of samples: the logits of all samples never stand in memory at once.

In language models the logits (tokens, vocabulary), their gradient and what the loss saves are most of the memory. Here
the forward computes, for one chunk of samples at a time, the logits, the loss and its gradient, and adds up what the
head's weights and the features get; the backward multiplies by the gradient of the value. The matrix products are as
many as on the plain path: three.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .._validation import count
from ._fast import transformed
from .modules import LowerBoundLoss

__all__ = ["ChunkedHeadLoss", "linear_cross_entropy", "linear_lower_bound_loss"]

_Loss: TypeAlias = nn.CrossEntropyLoss | LowerBoundLoss

#: Logits of one chunk (64 MiB in float32).
_CHUNK = 2**24


class ChunkedHeadLoss(nn.Module):
    """The loss of ``head(features)``, without all logits in memory at once: give it the features.

    ``ChunkedHeadLoss(head, loss)(features, target)`` is ``loss(head(features), target)``, and so are its gradients. Let
    the model return what goes into its head. BiSAM with ``descent=ChunkedHeadLoss(head, nn.CrossEntropyLoss())`` climbs
    the lower bound through the same head, and :class:`~bisam.CausalLMLoss` of it shifts the labels.

    Logits in 16 bits are widened to float32 for the loss; the sums over the chunks are taken in float32 at least.
    Second derivatives, and a step under ``torch.compile``, compute all logits at once.

    Args:
        head: the last layer (D features, K classes).
        loss: ``nn.CrossEntropyLoss`` without weights of classes, or :class:`~bisam.LowerBoundLoss`; ``"mean"`` or
            ``"sum"`` of the samples.
        samples: how many of them a chunk has; None means 2^24 logits (64 MiB in float32).

    Raises:
        TypeError: a head that is no ``nn.Linear``, or a loss of another type.
        ValueError: a loss of each sample, or with weights of classes; ``samples < 1``.

    Example:
        >>> head, features, target = nn.Linear(4, 10), torch.randn(6, 4), torch.arange(6)
        >>> chunked = ChunkedHeadLoss(head, nn.CrossEntropyLoss(), samples=2)(features, target)
        >>> torch.allclose(chunked, nn.functional.cross_entropy(head(features), target))
        True
    """

    def __init__(self, head: nn.Linear, loss: nn.CrossEntropyLoss | LowerBoundLoss, samples: int | None = None) -> None:
        super().__init__()
        if not isinstance(head, nn.Linear):
            raise TypeError(
                f"head={head!r} must be an nn.Linear, whose product with the features is all that makes the logits: "
                "take the plain loss of the model's logits instead"
            )
        _check_loss(loss)
        self.head, self.loss = head, loss
        self.samples = None if samples is None else count("samples", samples)

    @property
    def ignore_index(self) -> int:
        """The inner loss's own label of samples to leave out."""
        return self.loss.ignore_index

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the head's logits.

        Args:
            features: (..., D).
            target: class indices (...).

        Raises:
            TypeError: features that are not floating point, or a target that holds no class indices.
            ValueError: shapes or devices that do not belong together; a class index out of range (on the CPU).
        """
        return _head_loss(features, self.head.weight, self.head.bias, target, self.loss, self.samples)


def linear_lower_bound_loss(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    samples: int | None = None,
    **choices: Any,
) -> Tensor:
    """:func:`lower_bound_loss` of ``features @ weight.T + bias``, without all logits in memory at once.

    Example:
        >>> from bisam.functional import linear_lower_bound_loss
        >>> features, weight = torch.randn(8, 4), torch.randn(100, 4)
        >>> linear_lower_bound_loss(features, weight, torch.arange(8), samples=2, bound="tanh").shape
        torch.Size([])

    Args:
        features: (..., D).
        weight: (K, D).
        target: class indices (...).
        bias: (K,).
        samples: how many of them a chunk has; None means 2^24 logits (64 MiB in float32).
        choices: those of :class:`~bisam.LowerBoundLoss`; ``reduction`` is ``"mean"`` or ``"sum"``.

    Raises:
        TypeError: as :class:`ChunkedHeadLoss`.
        ValueError: as :class:`ChunkedHeadLoss`.
    """
    return _head_loss(features, weight, bias, target, _checked(LowerBoundLoss(**choices)), samples)


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    samples: int | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of ``features @ weight.T + bias``, without all logits in memory at once.

    torch 2.13 and later have ``torch.nn.functional.linear_cross_entropy``; this one is for older torch too.

    Example:
        >>> from bisam.functional import linear_cross_entropy
        >>> features, weight = torch.randn(8, 4), torch.randn(100, 4)
        >>> linear_cross_entropy(features, weight, torch.arange(8), samples=2).shape
        torch.Size([])

    Args:
        features: (..., D).
        weight: (K, D).
        target: class indices (...).
        bias: (K,).
        samples: how many of them a chunk has; None means 2^24 logits (64 MiB in float32).
        ignore_index: class index of samples to leave out.
        label_smoothing: as in ``nn.CrossEntropyLoss``.
        reduction: ``"mean"`` over the samples not ignored, or ``"sum"``.

    Raises:
        TypeError: as :class:`ChunkedHeadLoss`.
        ValueError: as :class:`ChunkedHeadLoss`.
    """
    loss = nn.CrossEntropyLoss(ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction)
    return _head_loss(features, weight, bias, target, _checked(loss), samples)


def _check_loss(loss: Any) -> None:
    if type(loss) not in (nn.CrossEntropyLoss, LowerBoundLoss):
        raise TypeError(
            f"loss={loss!r} must be an nn.CrossEntropyLoss or a bisam.LowerBoundLoss, whose value is a sum over samples"
        )
    if loss.reduction not in ("mean", "sum"):
        raise ValueError(
            f"loss={loss!r} with reduction={loss.reduction!r} has no gradient before backward() says what each sample "
            "weighs: use reduction='mean' or 'sum', or take the plain loss of the logits"
        )
    if getattr(loss, "weight", None) is not None:
        raise ValueError(f"loss={loss!r} has weights of classes, by which its mean divides: leave out weight=")


def _checked(loss: _Loss) -> _Loss:
    _check_loss(loss)
    return loss


def _check_shapes(features: Tensor, weight: Tensor, target: Tensor) -> None:
    if not features.is_floating_point():
        raise TypeError(f"features of dtype {features.dtype} must be floating point: pass what goes into the head")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target of dtype {target.dtype} must hold class indices: use target.long()")
    if features.ndim < 1 or features.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} do not go into a head of weight {tuple(weight.shape)}: pass "
            "what goes into the head, (..., D), not its logits"
        )
    if target.shape != features.shape[:-1]:
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit features of shape {tuple(features.shape)}: class "
            f"indices must have shape {tuple(features.shape[:-1])}"
        )
    if not features.device == weight.device == target.device:
        raise ValueError(
            f"features on {features.device}, weight on {weight.device} and target on {target.device} must be on one "
            "device: use .to(...)"
        )


def _head_loss(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, loss: _Loss, samples: int | None
) -> Tensor:
    _check_shapes(features, weight, target)
    if samples is not None:
        count("samples", samples)
    device = features.device.type
    may_cast = device != "meta"  # where there is no autocast
    if may_cast and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    else:
        features = features.to(weight.dtype)
    features, target = features.reshape(-1, features.shape[-1]), target.reshape(-1).long()
    with torch.autocast(device, enabled=False) if may_cast else contextlib.nullcontext():
        if transformed():
            return _plain(features, weight, bias, target, loss)
        if samples is None:
            samples = max(1, _CHUNK // max(1, len(weight)))
        if not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (features, weight, bias))):
            return _value(features, weight, bias, target, loss, samples)
        value: Tensor = _Chunked.apply(features, weight, bias, target, loss, samples)
    return value


def _value(features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, loss: _Loss, samples: int) -> Tensor:
    """The loss alone, where nobody can ask for its gradient."""
    with torch.no_grad():
        return _summed_up(_Sums(features, weight, bias, (False, False, False)), target, loss, samples)[0]


def _plain(features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, loss: _Loss) -> Tensor:
    value: Tensor = loss(_wide(nn.functional.linear(features, weight, bias)), target)
    return value


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Chunked(torch.autograd.Function):
    """The loss of flat features (N, D); saves the gradients of its sum, and its inputs for second derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        loss: _Loss,
        samples: int,
    ) -> Tensor:
        needed = ctx.needs_input_grad[:3]
        sums = _Sums(features, weight, bias, needed)
        value, ctx.number = _summed_up(sums, target, loss, samples)
        ctx.loss = loss
        ctx.save_for_backward(features, weight, bias, target, *sums.gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, target, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed():
            return (*_general(ctx, features, weight, bias, target, grad), None, None, None)
        scale = grad / ctx.number
        inputs = (features, weight, bias)
        found = [None if g is None else (g * scale).to(x.dtype) for g, x in zip(gradients, inputs, strict=True)]
        return (*found, None, None, None)


def _general(
    ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, grad: Tensor
) -> list[Tensor | None]:
    """The gradients in differentiable operations, of all logits at once."""
    inputs = [features, weight, bias]
    wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad[:3], strict=True) if needed and x is not None]
    with torch.enable_grad():
        value = _plain(features, weight, bias, target, ctx.loss)
        found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
    return [next(found) if any(x is w for w in wanted) else None for x in inputs]


def _summed(loss: _Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The same loss, summed over the samples."""
    if isinstance(loss, LowerBoundLoss):
        return LowerBoundLoss(loss.bound, loss.mu, ignore_index=loss.ignore_index, reduction="sum")
    return nn.CrossEntropyLoss(ignore_index=loss.ignore_index, label_smoothing=loss.label_smoothing, reduction="sum")


def _summed_up(sums: "_Sums", target: Tensor, loss: _Loss, samples: int) -> tuple[Tensor, Tensor | int]:
    """Add all chunks of ``samples``; return the reduced loss, and what its sum was divided by."""
    each = _summed(loss)
    for start in range(0, len(sums), samples):
        sums.add(slice(start, start + samples), target, each)
    number = (target != loss.ignore_index).sum().clamp(min=1) if loss.reduction == "mean" else 1
    return sums.value / number, number


class _Sums:
    """What the chunks add up to: the value, and the gradients that are needed of features, weight and bias."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]) -> None:
        self._features, self._weight, self._bias = features, weight, bias
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.value = features.new_zeros((), dtype=wide)
        self._of_features = torch.empty_like(features) if needed[0] else None
        self._of_weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
        self._of_bias = torch.zeros_like(bias, dtype=wide) if needed[2] and bias is not None else None

    @property
    def gradients(self) -> tuple[Tensor | None, ...]:
        """Those of features (N, D), weight (K, D) and bias (K,); None where they are not needed."""
        return self._of_features, self._of_weight, self._of_bias

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._features)

    def add(self, some: slice, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Add one chunk of samples."""
        features = self._features[some]
        logits = nn.functional.linear(features, self._weight, self._bias)
        if all(gradient is None for gradient in self.gradients):
            self.value += loss(_wide(logits), target[some])
            return
        leaf = _wide(logits).requires_grad_()
        with torch.enable_grad():
            value = loss(leaf, target[some])
            (slope,) = torch.autograd.grad(value, leaf)
        self.value += value.detach()
        slope = slope.to(logits.dtype)
        del leaf, logits, value
        if self._of_features is not None:
            torch.mm(slope, self._weight, out=self._of_features[some])
        if self._of_weight is not None:
            product = slope.t()
            if self._of_weight.dtype == slope.dtype:
                self._of_weight.addmm_(product, features)
            else:
                self._of_weight += product @ features
        if self._of_bias is not None:
            self._of_bias += slope.sum(0, dtype=self._of_bias.dtype)
