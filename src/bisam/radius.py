"""Radius: how far does the perturbation go, given the norm of the gradient?

The default, ``None``, is the number ``rho`` of each param group. A rule replaces it on every step; a schedule over
training is :class:`~bisam.RhoScheduler`.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ._validation import count, fraction, not_negative, positive
from .choice import Choice, Memory

__all__ = ["AccumulatedRadius", "LossBudget", "PartlyNormalised", "Radius"]


class Radius(Choice):
    """Computes the radius of a step from the gradient's norm.

    Example:
        >>> class Root(Radius):
        ...     def __call__(self, rho, norm, memory):
        ...         return rho * norm.sqrt()
        >>> opt = bisam.SAM(base, model=model, radius=Root())
    """

    @abstractmethod
    def __call__(self, rho: float, norm: Tensor, memory: Memory) -> Tensor:
        """Return the radius of this step: 0-dim, on the device of ``norm``.

        Where param groups have radii of their own, this is the largest one, and the others keep their ratio to it.

        Args:
            rho: the largest ``rho`` of the param groups, > 0.
            norm: l2 norm of the direction to climb along, 0-dim; with the loss's scale taken out where ``needs_scale``
                is declared. Zero and non-finite norms perturb nothing, whatever this returns.
            memory: what this choice has declared in ``memory`` and ``numbers``, and the step's number.
        """


class LossBudget(Radius):
    """LE-SAM's rule (Wang et al., ICML 2026, arXiv 2605.10183): min(sigma / ||g||, rho).

    To first order the perturbation then raises the loss by sigma on every step, whatever the gradient's norm. The
    formula is read off a summary of the paper; its equations and its code could not be checked. The paper lets sigma
    fall to zero along a cosine in the last epochs; over which part of the training is not known to us.

    Example:
        >>> from bisam import SAM
        >>> from bisam.radius import LossBudget
        >>> opt = SAM(base, model=model, rho=0.2, radius=LossBudget(sigma=0.1))  # bisam.LESAM

    Args:
        sigma: the first-order rise of the loss, > 0.
        total_steps: length of the training; sigma then falls to 0 along a cosine over its last part. None keeps sigma.
        anneal: that last part, as a fraction of ``total_steps`` in (0, 1]; 0.25 unless given.

    Raises:
        ValueError: a number out of its range; ``anneal`` without ``total_steps``.
    """

    needs_scale = True

    def __init__(self, sigma: float, total_steps: int | None = None, anneal: float | None = None) -> None:
        self.sigma = positive("sigma", sigma)
        self.total_steps = total_steps if total_steps is None else count("total_steps", total_steps)
        if total_steps is None and anneal is not None:
            raise ValueError(f"anneal={anneal!r} has no effect without total_steps=: pass the length of the training")
        self.anneal = fraction("anneal", 0.25 if anneal is None else anneal)

    def __call__(self, rho: float, norm: Tensor, memory: Memory) -> Tensor:
        """Return min(sigma / norm, rho)."""
        return (self.budget(memory.step) / norm).clamp(max=rho)

    def budget(self, step: int) -> float:
        """Return sigma at a step."""
        if self.total_steps is None:
            return self.sigma
        left = (self.total_steps - step) / (
            self.anneal * self.total_steps
        )  # 1 where sigma begins to fall, 0 at the end
        return self.sigma * (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2


class PartlyNormalised(Radius):
    """Unified SAM's rule (Oikonomou and Loizou, ICLR 2025, arXiv 2503.02225): rho (1 - lambda + lambda / ||g||) g.

    lambda 1 is SAM; 0 is the unnormalised SAM, whose perturbation shrinks with the gradient.

    Example:
        >>> from bisam import SAM
        >>> from bisam.radius import PartlyNormalised
        >>> opt = SAM(base, model=model, radius=PartlyNormalised(0.5))  # bisam.USAM

    Args:
        lambda_: weight of the normalised form, in [0, 1].
    """

    needs_scale = True

    def __init__(self, lambda_: float = 0.5) -> None:
        self.lambda_ = not_negative("lambda_", lambda_)
        if self.lambda_ > 1:
            raise ValueError(f"lambda_={lambda_!r} must lie in [0, 1]: 1 is SAM, 0 is unnormalised SAM")

    def __call__(self, rho: float, norm: Tensor, memory: Memory) -> Tensor:
        """Return rho ((1 - lambda) norm + lambda), the length of that perturbation."""
        return rho * ((1 - self.lambda_) * norm + self.lambda_)


class AccumulatedRadius(Radius):
    """LightSAM's rule (Cheng et al., arXiv 2505.24399): rho g / sqrt(sum of ||g||^2 over all steps up to this one).

    It is AdaGrad-Norm for the perturbation, which shrinks as gradients add up. LightSAM also adapts the learning rate,
    which is the base optimizer's business here.

    Example:
        >>> from bisam import SAM
        >>> from bisam.radius import AccumulatedRadius
        >>> opt = SAM(base, model=model, radius=AccumulatedRadius())

    Args:
        epsilon: the sum begins at epsilon^2; >= 0.
    """

    needs_scale = True

    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon = not_negative("epsilon", epsilon)
        self.numbers = {"squared_norms": self.epsilon**2}

    def __call__(self, rho: float, norm: Tensor, memory: Memory) -> Tensor:
        """Return rho norm / sqrt(sum), and remember the sum."""
        before = torch.as_tensor(memory.number("squared_norms"), dtype=norm.dtype, device=norm.device)
        total = before + norm.square()
        memory.write_number("squared_norms", torch.where(total.isfinite(), total, before))
        return rho * norm / total.sqrt()
