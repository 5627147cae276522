"""Combine: what becomes the gradient, given g at w and g_s at w + eps?

The default, ``None``, is SAM's: g_s alone. A combination needs the gradient of the *descent* objective at w. So the
ascent objective must be the same one, or a third pass computes that gradient (``third_pass=True``).
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ._validation import not_negative, positive
from ._vectors.vector import both_max_abs, both_norms, unit_of
from .choice import Choice, Memory, Vector

__all__ = [
    "AfterStepCombine",
    "Blend",
    "Combine",
    "Decoupled",
    "EveryStepCombine",
    "Renormalise",
    "Reuse",
    "Surrogate",
    "combine_",
    "combine_plain_",
    "step_after_",
]


class Combine(Choice):
    """Makes one gradient of two. It must be homogeneous, because it sees both in a common unit.

    Example:
        >>> class Mean(Combine):
        ...     linear = True
        ...     def __call__(self, at_w, at_perturbed, memory):
        ...         at_perturbed.lerp_(at_w, 0.5)
        >>> opt = bisam.SAM(base, model=model, combine=Mean())

    Attributes:
        linear: whether it takes no norm and no product of the two. A linear one is given both as they are.
    """

    linear: bool = False

    @abstractmethod
    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Change ``at_perturbed`` in place; ``at_w`` may be overwritten.

        Args:
            at_w: the descent objective's gradient at w.
            at_perturbed: its gradient at w + eps, over the same parameters.
            memory: what this choice has declared in ``memory`` and ``numbers``.
        """


class EveryStepCombine(Combine):
    """A combination that also changes the gradient of steps that do not perturb.

    Example:
        >>> from bisam.combine import EveryStepCombine, Reuse
        >>> isinstance(Reuse(), EveryStepCombine)
        True
    """

    @abstractmethod
    def plain_step(self, at_w: Vector, memory: Memory) -> None:
        """Change ``at_w``, the only gradient of such a step, in place."""


class AfterStepCombine(Combine):
    """A combination with a step of its own after the base optimizer's: w <- w - lr v, with each group's ``lr``.

    Its call hands v to ``memory.owe(v)``. From there on v is treated as gradients are: it adds up over micro-batches,
    ``zero_grad()`` clears it, a step that ``GradScaler`` skips does not take it, and checkpoints leave it out. The
    loss's scale is taken out of it, so with a scaler write ``passes(grad_scale=scaler)``. What changes ``p.grad``
    between the passes and ``step()``, such as clipping, does not reach it.

    Example:
        >>> from bisam.combine import AfterStepCombine, Decoupled
        >>> isinstance(Decoupled(9.0), AfterStepCombine)
        True
    """

    needs_scale = True


class Decoupled(AfterStepCombine):
    """The decoupled form of WSAM (Yue et al., KDD 2023, arXiv 2305.15817): sharpness apart from the base's update.

    The base optimizer descends g, and afterwards w <- w - lr weight (g_s - g), as decoupled weight decay does. So
    momentum and Adam's moments see g alone. Under SGD without momentum that is :class:`Blend`; for other bases it is
    not. ``p.grad`` is g, and clipping it leaves the second part as it is. It costs the memory of one more gradient.
    Where g_s is not finite, ``p.grad`` is not either, so that ``GradScaler`` skips the step.

    Example:
        >>> from bisam import SAM
        >>> from bisam.combine import Decoupled
        >>> opt = SAM(base, model=model, combine=Decoupled(9.0))

    Args:
        weight: of the sharpness, > 0; WSAM's gamma / (1 - gamma).
    """

    linear = True

    def __init__(self, weight: float) -> None:
        self.weight = positive("weight", weight)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Make ``at_perturbed`` the gradient at w, and owe the weighted difference."""
        sharpness = at_perturbed.copy()
        sharpness.add_(at_w, -1.0)
        sharpness.mul_(self.weight)
        memory.owe(sharpness)
        at_perturbed.lerp_(at_w, 1.0)  # the bits of at_w; NaN where at_perturbed is not finite


class Blend(Combine):
    """weight g_s + (1 - weight) g, the coupled form of WSAM (Yue et al., KDD 2023, arXiv 2305.15817).

    Example:
        >>> from bisam import SAM
        >>> from bisam.combine import Blend
        >>> opt = SAM(base, model=model, combine=Blend(9.0))  # bisam.WSAM

    Args:
        weight: of the gradient at w + eps, > 0; WSAM's gamma / (1 - gamma), 1 being SAM.
    """

    linear = True

    def __init__(self, weight: float) -> None:
        self.weight = positive("weight", weight)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Blend ``at_w`` into ``at_perturbed``."""
        at_perturbed.lerp_(at_w, 1 - self.weight)


class Surrogate(Combine):
    """GSAM's descent (Zhuang et al., ICLR 2022, arXiv 2203.08065): g_s - alpha times the part of g orthogonal to g_s.

    To first order that part changes the loss at w and not the perturbed loss. Ascent along it closes the gap between
    the two.

    Example:
        >>> from bisam import SAM
        >>> from bisam.combine import Surrogate
        >>> opt = SAM(base, model=model, combine=Surrogate(0.4))  # bisam.GSAM

    Args:
        alpha: >= 0; 0 is SAM.
    """

    def __init__(self, alpha: float = 0.4) -> None:
        self.alpha = not_negative("alpha", alpha)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Subtract the orthogonal part."""
        share = _minus_projection(at_w, at_perturbed)
        at_perturbed.blend_(1 - self.alpha * share, at_w, -self.alpha)


class Renormalise(Combine):
    """StableSAM's descent (Tan et al., JMLR 2025, arXiv 2401.07250): g_s ||g|| / ||g_s||.

    The gradient keeps the norm that it has at w, which widens the range of learning rates that train.

    Example:
        >>> from bisam import SAM
        >>> from bisam.combine import Renormalise
        >>> opt = SAM(base, model=model, combine=Renormalise())  # bisam.StableSAM
    """

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Give ``at_perturbed`` the norm of ``at_w``."""
        wanted, length = both_norms(at_w, at_perturbed)
        at_perturbed.mul_(wanted / torch.where(length > 0, length, 1))


class Reuse(EveryStepCombine):
    """LookSAM's combination (Liu et al., CVPR 2022, arXiv 2203.02714): steps that do not perturb reuse the last one.

    A step that perturbs descends g_s and remembers g_v, the part of g_s orthogonal to g. The steps until the next one
    descend g + alpha ||g|| / ||g_v|| g_v (Algorithm 1).

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Every
        >>> from bisam.combine import Reuse
        >>> opt = SAM(base, model=model, cadence=Every(5), combine=Reuse(0.7))  # bisam.LookSAM

    Args:
        alpha: length of the reused part relative to ||g||, >= 0.
    """

    memory = ("orthogonal",)

    def __init__(self, alpha: float = 0.7) -> None:
        self.alpha = not_negative("alpha", alpha)

    def __call__(self, at_w: Vector, at_perturbed: Vector, memory: Memory) -> None:
        """Remember the orthogonal part, of which only the direction counts; the gradient stays as it is."""
        share = _minus_projection(at_perturbed, at_w)
        memory.write("orthogonal", at_perturbed.plus(at_w, share), finite=share.isfinite())

    def plain_step(self, at_w: Vector, memory: Memory) -> None:
        """Add the remembered part."""
        orthogonal = memory.read("orthogonal", at_w)
        own, length = both_norms(at_w, orthogonal)
        at_w.add_(orthogonal, self.alpha * own / torch.where(length > 0, length, 1))


def _minus_projection(vector: Vector, other: Vector) -> Tensor:
    """Return how much of ``other`` to add to ``vector``, so that they become orthogonal: 0-dim."""
    product, square = vector.dot_and_square(other)
    return -product / torch.where(square > 0, square, 1)


def combine_(
    combine: Combine,
    at_w: Vector,
    gradient: Vector,
    perturbed: Tensor,
    memory: Memory,
    scale: Tensor | float | None = None,
    *,
    climbed: bool = False,
) -> None:
    """Combine ``gradient``, taken at w + eps, in place with the gradient at w, which is overwritten.

    Without a perturbation, or where the gradient at w is not finite, ``gradient`` stands for both. The loss's ``scale``
    is taken out of what the combination owes. Where the step has ``climbed`` along all of ``at_w``, a perturbation
    shows that ``at_w`` is finite.
    """
    in_place = at_w.on_host and gradient.on_host
    at_perturbed = gradient if in_place else gradient.copy()
    memory.valid = valid = perturbed if climbed else perturbed & at_w.is_finite()
    at_w.replace_unless_(valid, at_perturbed)
    if combine.linear or (in_place and at_w.is_moderate and at_perturbed.is_moderate):
        combine(at_w, at_perturbed, memory)
    else:
        unit = unit_of(at_w, torch.maximum(*both_max_abs(at_perturbed, at_w)))
        at_w.mul_(1 / unit)
        at_perturbed.mul_(1 / unit)
        combine(at_w, at_perturbed, memory)
        at_perturbed.mul_(unit)
        memory.scale_owing(unit)
    if scale is not None:
        memory.scale_owing(1 / scale)
    if not in_place:
        gradient.copy_(at_perturbed)


def combine_plain_(combine: EveryStepCombine, gradient: Vector, memory: Memory) -> None:
    """Change ``gradient``, taken at w, in place on a step that does not perturb."""
    if gradient.on_host and gradient.is_moderate:
        combine.plain_step(gradient, memory)
        return
    at_w = gradient.at_least_float32()
    unit = unit_of(at_w, at_w.max_abs())
    at_w.mul_(1 / unit)
    combine.plain_step(at_w, memory)
    at_w.mul_(unit)
    if at_w is not gradient:
        gradient.copy_(at_w)


@torch.no_grad()
def step_after_(groups: Iterable[dict[str, Any]], memory: Memory) -> None:
    """Take the step after the base optimizer's: w <- w - lr v with what is owed, where there is a gradient."""
    owed = memory.owed
    if owed is None:
        return
    for group in groups:
        there = owed.only({param for param in group["params"] if param.grad is not None})
        there.weights().add_(there, group["lr"] * (1.0 if group.get("maximize") else -1.0))
