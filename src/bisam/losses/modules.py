"""The losses of :mod:`bisam.functional` as modules, to be used like ``torch.nn.CrossEntropyLoss``."""

from torch import Tensor, nn

from .._validation import positive
from .bounds import Bound, as_bound
from .functional import checked_lower_bound_loss, zero_one_loss

__all__ = ["LowerBoundLoss", "ZeroOneLoss"]


class LowerBoundLoss(nn.Module):
    """BiSAM's ascent objective: a smooth lower bound of the 0-1 loss, :func:`bisam.functional.lower_bound_loss`.

    Maximise it (that is what an adversary does); minimise cross-entropy. Its value in your logs is a true lower
    bound of the error rate.

    Args:
        bound: name or :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; ``None`` takes the bound's own.
        alpha: slope at zero of a bound given by name, > 0; ``None`` means 0.1. ``"log"`` has none, and refuses it.
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: ``mu <= 0``, ``alpha <= 0`` or without effect, an unknown ``bound`` or ``reduction``.
    """

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
        """Return the loss of ``logits`` (B, K), (K,) or (B, K, d1, ...) under class indices or probabilities."""
        return checked_lower_bound_loss(logits, target, self.bound, self.mu, self.ignore_index, self.reduction)

    def extra_repr(self) -> str:
        """Show the choices in ``print(loss)``."""
        return f"bound={self.bound!r}, mu={self.mu}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class ZeroOneLoss(nn.Module):
    """The error rate, :func:`bisam.functional.zero_one_loss`.

    Args:
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: an unknown ``reduction``.
    """

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction = _known(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the share of mistakes of ``logits`` (B, K), (K,) or (B, K, d1, ...)."""
        return zero_one_loss(logits, target, ignore_index=self.ignore_index, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the choices in ``print(loss)``."""
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"


def _known(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r} is unknown: choose 'mean', 'sum' or 'none'")
    return reduction
