"""Combine: what becomes the gradient, given the one at w and the one at w + eps?

The default, ``None``, is SAM's: the gradient at w + eps, and nothing is kept of the other. A combination needs the
gradient of the *descent* objective at w, so the ascent objective must be the same one.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ._errors import positive
from ._foreach import lerp

__all__ = ["Blend", "Combine"]


@runtime_checkable
class Combine(Protocol):
    """Makes one gradient of two."""

    def __call__(self, at_w: list[Tensor], at_perturbed: list[Tensor]) -> None:
        """Change ``at_perturbed`` in place; the lists run in parallel."""


class Blend:
    """weight g_s + (1 - weight) g, the coupled form of WSAM (Yue et al., arXiv 2305.15817).

    Args:
        weight: of the gradient at w + eps, > 0; WSAM's gamma / (1 - gamma), 1 being SAM.
    """

    def __init__(self, weight: float) -> None:
        self.weight = positive("weight", weight)

    def __call__(self, at_w: list[Tensor], at_perturbed: list[Tensor]) -> None:
        """Blend ``at_w`` into ``at_perturbed``."""
        lerp(at_perturbed, at_w, 1 - self.weight)

    def __repr__(self) -> str:
        return f"Blend({self.weight})"
