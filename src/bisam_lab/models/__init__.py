"""The networks, by name."""

import re

from torch import nn

from ..recipe import ModelRecipe, RecipeError
from .resnet import ResNet

__all__ = ["ResNet", "build_model"]


def build_model(recipe: ModelRecipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the recipe's network for inputs of ``shape`` (without the batch), with ``classes`` logits.

    Raises:
        RecipeError: no such network, or options that its builder refuses.
    """
    found = re.fullmatch(r"resnet-(\d+)", recipe.name)
    if found is None:
        raise RecipeError(f"model.name={recipe.name!r}: must be resnet-N")
    try:
        return ResNet(int(found[1]), shape[0], classes, **recipe.options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model.name={recipe.name!r}: {error}") from None
