"""What is checked before jobs start: data, network, accelerator."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..recipe import Recipe, RecipeError

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe, data_dir: Path | None, seed: int, here: bool = True) -> str:
    """Load the data and build the network once, so that an error is shown once, before the jobs start.

    A study calls it in one of its worker processes: they have imported the engine, and hold the data that they read.

    Args:
        recipe: of the jobs.
        data_dir: folder of the data sets.
        seed: of the data's split.
        here: whether the jobs compute on this machine; a cluster's login node may have no accelerator.

    Returns:
        One sentence about the data for the user; empty: nothing to say.

    Raises:
        RecipeError: data are missing or too few, the network or the base optimizer cannot be built, or there is no such
            accelerator.
    """
    from ..measures.taking import check as check_measures
    from ..run.setup import check  # here: the process that only starts the jobs needs no engine

    found: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    name = recipe.engine.accelerator
    if here and name in found and not found[name]():
        raise RecipeError(f"engine.accelerator={name!r}: torch {torch.__version__} finds none here; use auto or cpu")
    said = check(recipe, data_dir, seed)
    check_measures(recipe, data_dir, seed)
    return said
