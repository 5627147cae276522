"""Direction: along what of the ascent objective's gradient does the perturbation climb?

The default, ``None``, is the gradient itself.
"""

from abc import abstractmethod

import torch

from ._validation import fraction, not_negative
from ._vectors.vector import both_max_abs
from .choice import Choice, Memory, Vector

__all__ = ["Direction", "Friendly", "Smoothed"]


class Direction(Choice):
    """Turns the gradient into the direction to climb along.

    Example:
        >>> class Opposite(Direction):
        ...     def __call__(self, gradient, memory):
        ...         gradient.mul_(-1.0)
        >>> opt = bisam.SAM(base, model=model, direction=Opposite())
    """

    @abstractmethod
    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Change ``gradient`` in place; its length does not matter.

        Args:
            gradient: of the ascent objective, with the loss's scale taken out where ``needs_scale`` is declared.
            memory: what this choice has declared in ``memory`` and ``numbers``.
        """


class Smoothed(Direction):
    """VaSSO's direction (Li and Giannakis, NeurIPS 2023, arXiv 2309.15639): d = (1 - theta) d + theta g.

    The mean over steps takes the noise of the mini-batch out of the adversary's direction. The first d is the first
    gradient.

    Example:
        >>> from bisam import SAM
        >>> from bisam.direction import Smoothed
        >>> opt = SAM(base, model=model, direction=Smoothed(theta=0.9))  # bisam.VaSSO

    Args:
        theta: weight of the new gradient, in (0, 1]; 1 is the gradient itself.
    """

    memory = ("mean",)
    needs_scale = True

    def __init__(self, theta: float = 0.9) -> None:
        self.theta = fraction("theta", theta)

    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Replace the gradient by its running mean."""
        gradient.copy_(_moved(memory.read("mean", gradient), gradient, self.theta, memory))


class Friendly(Direction):
    """F-SAM's direction (Li et al., CVPR 2024, arXiv 2403.12350): g - sigma m, then m = lambda m + (1 - lambda) g.

    The running mean m estimates the full gradient. Without it the adversary follows the noise of the batch. m is the
    mean of the steps before, as in the authors' code; the paper prints the updated mean, which for sigma = 1 gives the
    same direction. The first step climbs its gradient, and m becomes that gradient.

    Example:
        >>> from bisam import SAM
        >>> from bisam.direction import Friendly
        >>> opt = SAM(base, model=model, direction=Friendly(sigma=1.0))  # bisam.FriendlySAM

    Args:
        sigma: factor of the mean that is subtracted, >= 0.
        decay: lambda, the weight of the old mean, in (0, 1].
    """

    memory = ("mean",)
    needs_scale = True

    def __init__(self, sigma: float = 1.0, decay: float = 0.9) -> None:
        self.sigma = not_negative("sigma", sigma)
        self.decay = fraction("decay", decay)

    def __call__(self, gradient: Vector, memory: Memory) -> None:
        """Subtract the running mean."""
        mean = memory.read("mean", gradient)
        friendly = gradient.at_least_float32()
        _moved(mean, friendly, 1 - self.decay, memory)
        friendly.add_(mean, -self.sigma)
        if friendly is not gradient:
            gradient.copy_(friendly)


def _moved(mean: Vector, gradient: Vector, weight: float, memory: Memory) -> Vector:
    """Return the running mean moved towards the gradient, and remember it; a zero mean becomes the gradient."""
    if mean.on_host and gradient.on_host:
        zero, finite = mean.is_zero(), None
    else:  # one reduction for both; what is remembered is finite, so the gradient alone decides
        there, here = both_max_abs(mean, gradient)
        zero, finite = there == 0, here.isfinite()
    moved = mean.lerp(gradient, torch.where(zero, mean.number(1.0), mean.number(weight)))
    memory.write("mean", moved, finite=finite)
    return moved
