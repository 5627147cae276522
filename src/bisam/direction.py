"""Direction: along what of the ascent objective's gradient does the perturbation climb?

The default, ``None``, is the gradient itself.
"""

from typing import Protocol, runtime_checkable

import torch

from ._errors import not_negative, share
from .memory import Memory
from .vector import Vector

__all__ = ["Direction", "Friendly", "Smoothed"]


@runtime_checkable
class Direction(Protocol):
    """Turns the gradient into the direction to climb along.

    A direction with a memory names its vectors in a class attribute ``memory``, a tuple of strings.
    """

    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Change ``gradient`` in place; its length does not matter."""


class Smoothed:
    """VaSSO's direction (Li and Giannakis, NeurIPS 2023, arXiv 2309.15639): d = (1 - theta) d + theta g.

    Averaging over steps takes the noise of the mini-batch out of the adversary's direction. The first d is the first
    gradient.

    Args:
        theta: weight of the new gradient, in (0, 1]; 1 is the gradient itself.
    """

    memory = ("mean",)
    needs_scale = True

    def __init__(self, theta: float = 0.9) -> None:
        self.theta = share("theta", theta)

    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Replace the gradient by its running mean."""
        gradient.copy_(_moved(memory.read("mean", gradient), gradient, self.theta, memory))

    def __repr__(self) -> str:
        return f"Smoothed(theta={self.theta})"


class Friendly:
    """F-SAM's direction (Li et al., CVPR 2024, arXiv 2403.12350): g - sigma m, then m = lambda m + (1 - lambda) g.

    It takes the full gradient, of which m is an estimate, out of the adversary's direction and leaves the batch's own
    noise. The mean is that of the steps before, as in the authors' code; the paper prints the updated one, which for
    sigma = 1 points the same way. The first step climbs its gradient and remembers it whole.

    Args:
        sigma: share of the mean that is taken out, >= 0.
        decay: lambda, how much of the mean stays from step to step, in (0, 1].
    """

    memory = ("mean",)
    needs_scale = True

    def __init__(self, sigma: float = 1.0, decay: float = 0.9) -> None:
        self.sigma = not_negative("sigma", sigma)
        self.decay = share("decay", decay)

    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Subtract the running mean."""
        mean, friendly = memory.read("mean", gradient), gradient.copy()
        _moved(mean, friendly, 1 - self.decay, memory)
        friendly.add_(mean, -self.sigma)
        gradient.copy_(friendly)

    def __repr__(self) -> str:
        return f"Friendly(sigma={self.sigma}, decay={self.decay})"


def _moved(mean: Vector, gradient: Vector, weight: float, memory: Memory) -> Vector:
    """Return the running mean moved towards the gradient, and remember it; an empty one becomes the gradient."""
    peak = mean.peak()
    moved = mean.lerp(gradient, torch.where(peak > 0, torch.full_like(peak, weight), 1))
    memory.write("mean", moved)
    return moved
