r"""The 0-1 loss and BiSAM's smooth lower bound of it, as functions.

For a sample with logits f, label y and margins F_j = f_j - f_y, the loss is

    Q = 1/mu [ log sum_j exp(mu phi(F_j)) - log K ]  <=  max_j phi(F_j)  <=  1{max_j F_j > 0}.

It differs from the paper's printed Q (Xie et al., ICML 2024, arXiv 2407.12993) by the constant -log(K)/mu, without
which the value is no lower bound (at uniform logits, K = 10 and mu = 1 the printed Q reads 2.303), and from the
authors' script, which logs mu Q, by the factor 1/mu. The gradient is that of the printed Q, and the direction
in which an adversary climbs is the same in all three.
"""

import torch
from torch import Tensor

from .._validation import positive
from ._autograd import ExpectedLowerBound, LowerBound, wide_dtype
from .bounds import Bound, as_bound

#: No class has this index.
_NEVER = -(2**63)

__all__ = ["binary_lower_bound_loss", "lower_bound_loss", "zero_one_loss"]


def lower_bound_loss(
    logits: Tensor,
    target: Tensor,
    *,
    bound: str | Bound = "log",
    mu: float | None = None,
    alpha: float | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Smooth lower bound of the 0-1 loss: 1/mu [logsumexp_j mu phi(f_j - f_y) - log K] for each sample.

    For every input the value is at most the sample's 0-1 loss. It is computed in float32 or better whatever the
    dtype of the logits and whatever autocast says, with the closed-form gradient
    dQ/df_j = softmax_j(mu phi(F)) phi'(F_j) for j != y; the true class gets minus their sum. Logits of -inf
    (masked classes) and +inf are allowed; a NaN gives NaN, as in cross-entropy.

    Args:
        logits: (B, K), (K,) or (B, K, d1, ...), any floating dtype.
        target: class indices (B,), () or (B, d1, ...), or probabilities of the shape of ``logits`` (mixup, label
            smoothing), which mean the expectation over the target's class.
        bound: ``"log"``, ``"tanh"``, ``"ramp"``, ``"softsign"``, ``"shifted-tanh"`` or a :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; ``None`` takes the bound's own (log: 1, tanh and the rest: 10).
        alpha: slope at zero of a bound given by name, > 0; ``None`` means 0.1. ``"log"`` has none, and refuses it.
        ignore_index: class index of samples to leave out; not used with probabilities.
        reduction: ``"mean"`` over the samples not ignored (0 where there are none), ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of the class indices for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError: logits that are not floating point; a bool target, or a floating one of another shape.
        ValueError: shapes or devices that do not match; a class index out of range (on CPU; on CUDA the device
            asserts); ``mu <= 0``, ``alpha <= 0`` or without effect, an unknown ``bound`` or ``reduction``.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> lower_bound_loss(logits, torch.tensor([0, 0]), reduction="none")
        tensor([-0.8557,  0.4064])
    """
    bound = as_bound(bound, alpha)
    return checked_lower_bound_loss(
        logits, target, bound, bound.mu if mu is None else positive("mu", mu), ignore_index, reduction
    )


def checked_lower_bound_loss(
    logits: Tensor, target: Tensor, bound: Bound, mu: float, ignore_index: int, reduction: str
) -> Tensor:
    """:func:`lower_bound_loss` of a bound and a mu that have been checked."""
    logits, target, by_class = _class_last(logits, target)
    if by_class:
        try:
            value = LowerBound.apply(logits, target, bound, mu, ignore_index)
        except (RuntimeError, IndexError) as error:
            raise _explain(error, target, logits.shape[-1], ignore_index) from error
        return _reduce(value, reduction, target != ignore_index)
    return _reduce(ExpectedLowerBound.apply(logits, target, bound, mu), reduction, None)


def binary_lower_bound_loss(
    logits: Tensor,
    target: Tensor,
    *,
    bound: str | Bound = "log",
    mu: float | None = None,
    alpha: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """:func:`lower_bound_loss` for problems with one logit: the two classes have the logits (0, z).

    Args:
        logits: any shape; positive means class 1.
        target: the same shape; 0 or 1 as integers or bools, or floating probabilities of class 1.
        bound: as in :func:`lower_bound_loss`.
        mu: as in :func:`lower_bound_loss`.
        alpha: as in :func:`lower_bound_loss`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of ``logits`` for ``"none"``.

    Raises:
        ValueError: the shapes differ, and whatever :func:`lower_bound_loss` refuses.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} must have the shape of logits, {tuple(logits.shape)}: "
            "one label for each logit"
        )
    two = torch.stack([torch.zeros_like(logits), logits], -1).reshape(-1, 2)
    if target.is_floating_point():
        target = torch.stack([1 - target, target], -1).reshape(-1, 2)
    else:
        target = target.long().reshape(-1)
    value = lower_bound_loss(
        two, target, bound=bound, mu=mu, alpha=alpha, ignore_index=_NEVER, reduction="none"
    ).reshape(logits.shape)
    return _reduce(value, reduction, None)


def zero_one_loss(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """The share of mistakes: 1 where another class beats the true one (max_j F_j > 0), or where a logit is NaN.

    A tie is not a mistake. The gradient is zero everywhere; use it to watch, not to train.

    Args:
        logits: (B, K), (K,) or (B, K, d1, ...).
        target: class indices or probabilities, as in :func:`lower_bound_loss`.
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"`` over the samples not ignored (0 where there are none), ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of the class indices for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError: as :func:`lower_bound_loss`.
        ValueError: as :func:`lower_bound_loss`.
    """
    logits, target, by_class = _class_last(logits.detach(), target)
    wrong = (~(logits >= logits.amax(-1, keepdim=True))).to(wide_dtype(logits))  # NaN compares false: a mistake
    if not by_class:
        return _reduce((target * wrong).sum(-1), reduction, None)
    kept = target != ignore_index
    try:
        value = wrong.gather(-1, torch.where(kept, target, 0).unsqueeze(-1)).squeeze(-1)
    except (RuntimeError, IndexError) as error:
        raise _explain(error, target, logits.shape[-1], ignore_index) from error
    return _reduce(torch.where(kept, value, 0), reduction, kept)


def _class_last(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return logits with classes last, the target to match, and whether it holds class indices; or refuse them."""
    for name, tensor in (("logits", logits), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} of type {type(tensor).__name__} must be a tensor: use torch.as_tensor({name})")
    if not logits.is_floating_point():
        raise TypeError(f"logits of dtype {logits.dtype} must be floating point: pass the network's raw outputs")
    if logits.device != target.device:
        raise ValueError(
            f"target on {target.device} must be on the device of logits, {logits.device}: use target.to(...)"
        )
    if logits.ndim == 0:
        raise ValueError("logits of shape () have no class dimension: pass (B, K), (K,) or (B, K, d1, ...)")
    dim = 0 if logits.ndim == 1 else 1
    if logits.shape[dim] == 0:
        raise ValueError(f"logits of shape {tuple(logits.shape)} have no classes in dimension {dim}")
    shape = logits.shape[:dim] + logits.shape[dim + 1 :]
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise TypeError(
                f"target of dtype {target.dtype} and shape {tuple(target.shape)}: class indices must be integers "
                f"(use target.long()) and probabilities must have the shape of logits, {tuple(logits.shape)}"
            )
        return logits.movedim(dim, -1), target.movedim(dim, -1).to(wide_dtype(logits)), False
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"target of dtype {target.dtype} must hold class indices: use target.long()")
    if target.shape != shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}: "
            f"class indices must have shape {tuple(shape)}"
        )
    return logits.movedim(dim, -1), target.long(), True


def _explain(error: Exception, target: Tensor, classes: int, ignore_index: int) -> Exception:
    """Turn the kernel's complaint about an index into one about ``target``; other errors pass unchanged."""
    if "out of bounds" not in str(error) or target.device.type != "cpu":
        return error
    try:
        kept = target[target != ignore_index]
        first = int(kept[(kept < 0) | (kept >= classes)][0])
    except (RuntimeError, IndexError):  # under vmap the values cannot be looked at
        return error
    return ValueError(
        f"target holds class index {first}, but logits have {classes} classes: "
        f"indices must lie in 0..{classes - 1} or equal ignore_index={ignore_index}"
    )


def _reduce(value: Tensor, reduction: str, kept: Tensor | None) -> Tensor:
    if reduction == "none":
        return value
    if reduction == "sum":
        return value.sum()
    if reduction != "mean":
        raise ValueError(f"reduction={reduction!r} is unknown: choose 'mean', 'sum' or 'none'")
    return value.sum() / (max(value.numel(), 1) if kept is None else kept.sum().clamp(min=1))
