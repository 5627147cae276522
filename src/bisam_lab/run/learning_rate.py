"""The learning rate over a training."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..recipe import TrainRecipe

__all__ = ["learning_rate", "rate"]


def learning_rate(opt: Optimizer, recipe: TrainRecipe, steps: int) -> LambdaLR:
    """Return the recipe's scheduler for a training of ``steps`` steps; step it after each optimizer step."""
    return LambdaLR(opt, rate(recipe, steps))


def rate(recipe: TrainRecipe, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the steps done: a warm-up, then the schedule.

    By epochs, an epoch keeps the rate of its first step. Cosine is then ``CosineAnnealingLR(opt, epochs)``.
    """
    rising = round(recipe.warmup * steps)
    kept = max(1, steps // recipe.epochs) if recipe.schedule_by == "epoch" else 1

    def factor(step: int) -> float:
        step -= step % kept
        if step < rising:
            return (step + 1) / rising
        share = (step - rising) / max(1, steps - rising)
        if recipe.schedule == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        if recipe.schedule == "linear":
            return 1 - share
        if recipe.schedule == "step":
            return recipe.gamma ** sum(step >= milestone * steps for milestone in recipe.milestones)
        return 1.0

    return factor
