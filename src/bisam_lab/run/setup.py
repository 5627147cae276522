"""What a run starts from: the examples and the network."""

from pathlib import Path

from torch import nn

from ..data import Splits, load_splits
from ..models import build_model
from ..models.published import located
from ..recipe import Recipe
from .base_optimizer import build_base
from .fabric import Fabric

__all__ = ["check", "load_examples_and_model"]


def load_examples_and_model(recipe: Recipe, data_dir: Path | None, seed: int) -> tuple[Splits, nn.Module]:
    """Read and split the data, and build the network for them. Both depend only on the seed.

    Raises:
        RecipeError: data are missing, or the network cannot be built.
    """
    model = located(recipe.model, data_dir)
    splits = load_splits(recipe.data, data_dir, seed, tokenizer=model.tokenizer)
    Fabric.seed_everything(seed, verbose=False)
    return splits, build_model(model, splits.shape, splits.classes, splits.vocabulary)


def check(recipe: Recipe, data_dir: Path | None, seed: int = 0) -> str:
    """Find the errors that every run of the recipe would have, before any process starts.

    Returns:
        One sentence about the data for the user; empty: nothing to say.

    Raises:
        RecipeError: data are missing, or the network or the base optimizer cannot be built.
    """
    splits, model = load_examples_and_model(recipe, data_dir, seed)
    build_base(recipe.train, model)
    return splits.note
