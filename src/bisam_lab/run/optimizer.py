"""A method around the base optimizer that a recipe names."""

from torch import nn

from bisam import SharpnessAware

from ..recipe import Recipe, RecipeError
from ..registry.methods import Method
from .base_optimizer import build_base
from .descent import descent_loss

__all__ = ["build_optimizer"]


def build_optimizer(name: str, recipe: Recipe, model: nn.Module, steps: int, classes: int) -> SharpnessAware:
    """Build the recipe's optimizer, and around it the method of that name, for a training of so many steps.

    Args:
        name: of the method.
        recipe: what to train.
        model: the network.
        steps: of the whole training.
        classes: how many the data have.

    Raises:
        RecipeError: the base optimizer cannot be built, or cannot be wrapped.
        ValueError: there is no such method, or it is another base optimizer than the recipe's.
    """
    t, s = recipe.train, recipe.sharpness
    method = Method(name, s.options)
    if method.plain and name not in ("plain", t.optimizer):
        raise ValueError(f"{name!r} is not the recipe's optimizer, train.optimizer={t.optimizer}")
    base = build_base(t, model)
    try:
        return method.build(
            base,
            model=model,
            rho=method.radius(s.rho, s.radii),
            descent=descent_loss(t, classes),
            steps=steps,
            epochs=t.epochs,
            mu=s.mu,
            alpha=s.alpha,
            sync_ascent=s.sync_ascent,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{name} around train.optimizer={t.optimizer}: {error}") from None
