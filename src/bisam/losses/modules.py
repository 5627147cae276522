"""The losses of :mod:`bisam.functional` as modules, to be used like ``torch.nn.CrossEntropyLoss``."""

import torch
from torch import Tensor, nn

from .._validation import positive
from ._targets import Samples, are_distributions, are_labels, binary_labels, classes_last
from .bounds import Bound, as_bound
from .functional import binary_lower_bound_of, lower_bound_of, mistakes_of

__all__ = ["BinaryLowerBoundLoss", "LowerBoundLoss", "ZeroOneLoss"]


class LowerBoundLoss(nn.Module):
    """BiSAM's ascent objective: a smooth lower bound of the 0-1 loss, :func:`bisam.functional.lower_bound_loss`.

    Maximise it (that is what an adversary does); minimise cross-entropy. Its value in your logs is a true lower
    bound of the error rate.

    Example:
        >>> from bisam import SAM, LowerBoundLoss
        >>> opt = SAM(base, model=model, ascent=LowerBoundLoss("tanh"))  # BiSAM-tanh
        >>> LowerBoundLoss()(torch.tensor([[2.0, 0.0]]), torch.tensor([0])) <= 0
        tensor(True)

    Args:
        bound: name or :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; ``None`` takes the bound's own.
        alpha: slope at zero of a bound given by name, > 0; ``None`` means 0.1. ``"log"`` has none, and refuses it.
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Attributes:
        target_dtypes: dtypes of class indices that the descent objective takes, which sees the same targets in the
            next pass; those of cross-entropy, unless BiSAM knows better.

    Raises:
        ValueError: ``mu <= 0``, ``alpha <= 0`` or without effect, an unknown ``bound`` or ``reduction``.
    """

    target_dtypes: tuple[torch.dtype, ...] = (torch.int64, torch.uint8)
    _looked = False

    def __init__(
        self,
        bound: str | Bound = "log",
        mu: float | None = None,
        alpha: float | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.bound = as_bound(bound, alpha)
        self.mu = self.bound.mu if mu is None else positive("mu", mu)
        self.ignore_index = ignore_index
        self.reduction = _known(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``logits`` (B, K), (K,) or (B, K, d1, ...) under class indices or probabilities.

        Raises:
            TypeError: class indices of a dtype that cross-entropy would refuse in the next pass, and whatever
                :func:`~bisam.functional.lower_bound_loss` refuses.
            ValueError: as :func:`~bisam.functional.lower_bound_loss`; rows that are no probabilities, in the first
                call, on every device.
        """
        samples = _checked(self, logits, target)
        if samples.by_class and target.dtype not in self.target_dtypes:
            raise TypeError(
                f"target of dtype {target.dtype}: losses of torch.nn take class indices of other dtypes "
                f"({_names(self.target_dtypes)}), and the next pass sees the same target: use target.long()"
            )
        return lower_bound_of(samples, self.bound, self.mu, self.ignore_index, self.reduction)

    def extra_repr(self) -> str:
        """Show the choices in ``print(loss)``."""
        return f"bound={self.bound!r}, mu={self.mu}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class BinaryLowerBoundLoss(nn.Module):
    """BiSAM's ascent objective where each logit is a problem of its own: one logit for two classes, or several labels.

    :func:`bisam.functional.binary_lower_bound_loss` as a module. ``BiSAM(base, descent=nn.BCEWithLogitsLoss())`` climbs
    it by itself. Its value in your logs is a true lower bound of the share of labels that are wrong.

    Args:
        bound: name or :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; ``None`` takes the bound's own.
        alpha: slope at zero of a bound given by name, > 0; ``None`` means 0.1. ``"log"`` has none, and refuses it.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Attributes:
        target_dtypes: dtypes of targets that the descent objective takes, which sees the same targets in the next
            pass; None is any. BiSAM sets it.

    Raises:
        ValueError: ``mu <= 0``, ``alpha <= 0`` or without effect, an unknown ``bound`` or ``reduction``.

    Example:
        >>> loss = BinaryLowerBoundLoss()
        >>> loss(torch.tensor([[-2.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(-0.0738)
    """

    target_dtypes: tuple[torch.dtype, ...] | None = None
    _looked = False

    def __init__(
        self,
        bound: str | Bound = "log",
        mu: float | None = None,
        alpha: float | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.bound = as_bound(bound, alpha)
        self.mu = self.bound.mu if mu is None else positive("mu", mu)
        self.reduction = _known(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``logits`` of any shape.

        Args:
            logits: positive means class 1.
            target: the same shape; 0 or 1 as integers or bools, or floating probabilities of class 1.

        Raises:
            TypeError: a dtype that is not among ``target_dtypes``, and as
                :func:`~bisam.functional.binary_lower_bound_loss`.
            ValueError: as :func:`~bisam.functional.binary_lower_bound_loss`; labels outside 0..1, in the first call,
                on every device.
        """
        labels = binary_labels(logits, target)
        if self.target_dtypes is not None and target.dtype not in self.target_dtypes:
            raise TypeError(
                f"target of dtype {target.dtype}: the descent objective takes other dtypes "
                f"({_names(self.target_dtypes)}), so the next pass would fail: use target.float()"
            )
        if not self._looked and are_labels(labels):
            self._looked = True
        return binary_lower_bound_of(logits, labels, self.bound, self.mu, self.reduction)

    def extra_repr(self) -> str:
        """Show the choices in ``print(loss)``."""
        return f"bound={self.bound!r}, mu={self.mu}, reduction={self.reduction!r}"


class ZeroOneLoss(nn.Module):
    """The error rate, :func:`bisam.functional.zero_one_loss`.

    Example:
        >>> from bisam import ZeroOneLoss
        >>> ZeroOneLoss()(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor(0.5000)

    Args:
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: an unknown ``reduction``.
    """

    _looked = False

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction = _known(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the share of mistakes of ``logits`` (B, K), (K,) or (B, K, d1, ...)."""
        return mistakes_of(_checked(self, logits, target), self.ignore_index, self.reduction)

    def extra_repr(self) -> str:
        """Show the choices in ``print(loss)``."""
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"


def _checked(loss: LowerBoundLoss | ZeroOneLoss, logits: Tensor, target: Tensor) -> Samples:
    """Return the samples; look at the values of probabilities in the first call that can, and never again."""
    samples = classes_last(logits, target)
    if not samples.by_class and not loss._looked and are_distributions(samples.target):
        loss._looked = True
    return samples


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _known(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r} is unknown: choose 'mean', 'sum' or 'none'")
    return reduction
