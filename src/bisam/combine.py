"""Combine: what becomes the gradient, given g at w and g_s at w + eps?

The default, ``None``, is SAM's: g_s, and nothing is kept of the other. A combination needs the gradient of the
*descent* objective at w: the ascent objective must be the same one, or a third pass computes it (``third_pass=True``).
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ._errors import not_negative, positive
from .memory import Memory
from .vector import Vector, unit_of

__all__ = ["Blend", "Combine", "Reuse", "Surrogate", "combine_", "reuse_"]


@runtime_checkable
class Combine(Protocol):
    """Makes one gradient of two; it must be homogeneous, for it sees both in some common unit.

    One that says ``linear = True`` takes no norm and no product of the two, and is given them as they are.
    """

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Change ``at_perturbed`` in place; ``at_w`` may be used up."""


@runtime_checkable
class Reuses(Combine, Protocol):
    """The seam of a combination that changes the gradient on steps which do not perturb, too."""

    def reuse(self, at_w: Vector, memory: Memory) -> None:
        """Change ``at_w``, the only gradient of such a step, in place."""


class Blend:
    """weight g_s + (1 - weight) g, the coupled form of WSAM (Yue et al., KDD 2023, arXiv 2305.15817).

    Args:
        weight: of the gradient at w + eps, > 0; WSAM's gamma / (1 - gamma), 1 being SAM.
    """

    linear = True

    def __init__(self, weight: float) -> None:
        self.weight = positive("weight", weight)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Blend ``at_w`` into ``at_perturbed``."""
        at_perturbed.lerp_(at_w, 1 - self.weight)

    def __repr__(self) -> str:
        return f"Blend({self.weight})"


class Surrogate:
    """GSAM's descent (Zhuang et al., ICLR 2022, arXiv 2203.08065): g_s - alpha times the part of g orthogonal to g_s.

    That part changes the loss at w, and to first order not the perturbed one: going up along it closes the gap
    between the two.

    Args:
        alpha: >= 0; 0 is SAM.
    """

    def __init__(self, alpha: float = 0.4) -> None:
        self.alpha = not_negative("alpha", alpha)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Subtract the orthogonal part."""
        at_w.add_(at_perturbed, _minus_share(at_w, at_perturbed))
        at_perturbed.add_(at_w, -self.alpha)

    def __repr__(self) -> str:
        return f"Surrogate(alpha={self.alpha})"


class Reuse:
    """LookSAM's combination (Liu et al., CVPR 2022, arXiv 2203.02714): on steps without a perturbation, reuse the last.

    A step that perturbs descends g_s and remembers g_v, the part of g_s orthogonal to g; the steps until the next one
    descend g + alpha ||g|| / ||g_v|| g_v (Algorithm 1).

    Args:
        alpha: length of the reused part beside ||g||, >= 0.
    """

    memory = ("orthogonal",)

    def __init__(self, alpha: float = 0.7) -> None:
        self.alpha = not_negative("alpha", alpha)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Remember the orthogonal part, of which only the direction counts; the gradient stays as it is."""
        memory.write("orthogonal", at_perturbed.plus(at_w, _minus_share(at_perturbed, at_w)))

    def reuse(self, at_w: Vector, memory: Memory) -> None:
        """Add the remembered part."""
        orthogonal = memory.read("orthogonal", at_w)
        length = orthogonal.norm()
        at_w.add_(orthogonal, self.alpha * at_w.norm() / torch.where(length > 0, length, 1))

    def __repr__(self) -> str:
        return f"Reuse(alpha={self.alpha})"


def _minus_share(vector: Vector, other: Vector) -> Tensor:
    """Return how much of ``other`` to add to ``vector``, so that they become orthogonal: 0-dim."""
    square = other.norm().square()
    return -vector.dot(other) / torch.where(square > 0, square, 1)


def combine_(combine: Combine, at_w: Vector, gradient: Vector, perturbed: Tensor, memory: Memory) -> None:
    """Combine ``gradient``, taken at w + eps, in place with that at w, which is used up.

    Without a perturbation, or where the gradient at w is not finite, both are the former.
    """
    at_perturbed, peak = gradient.copy(), at_w.peak()
    memory.sound = sound = perturbed & peak.isfinite()
    at_w.keep_unless_(sound, at_perturbed)
    if getattr(combine, "linear", False):
        combine(at_w, at_perturbed, memory)
    else:
        unit = unit_of(at_w, torch.maximum(at_perturbed.peak(), torch.where(sound, peak, 0)))
        at_w.mul_(1 / unit)
        at_perturbed.mul_(1 / unit)
        combine(at_w, at_perturbed, memory)
        at_perturbed.mul_(unit)
    gradient.copy_(at_perturbed)


def reuse_(combine: Reuses, gradient: Vector, memory: Memory) -> None:
    """Change ``gradient``, taken at w, in place by what a combination adds to it."""
    at_w = gradient.wide()
    unit = unit_of(at_w, at_w.peak())
    at_w.mul_(1 / unit)
    combine.reuse(at_w, memory)
    at_w.mul_(unit)
    if at_w is not gradient:
        gradient.copy_(at_w)
