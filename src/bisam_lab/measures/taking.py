"""Take the measures that a recipe asks for, of a run that has ended."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ..data import load_splits
from ..recipe import Recipe, RecipeError
from ..registry.measures import MEASURES
from ..run.resumable import Training
from .subject import Subject

__all__ = ["check", "take", "taker"]


def take(run: Training, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the quantities of each measure, of the weights that the run's network has now."""
    device = run.fabric.device
    subject = Subject(
        net=run.steps.net,
        model=run.model,
        fabric=run.fabric,
        train=run.train,
        validation=run.validation,
        test=run.test.to(device),
        classes=run.classes,
        batch_size=run.recipe.train.batch_size,
        seed=run.seed,
    )
    return {name: _function(name)(subject) for name in names}


def taker(recipe: Recipe) -> Callable[[Training], dict[str, dict[str, float]]] | None:
    """Return what takes a recipe's measures of a run; None if it asks for none.

    Raises:
        RecipeError: the network is in shards.
    """
    if recipe.measures and recipe.engine.sharded:
        raise RecipeError("measures are not taken of a network in shards: leave them out, or set engine.strategy=ddp")
    return (lambda run: take(run, recipe.measures)) if recipe.measures else None


def check(recipe: Recipe, data_dir: Path | None, seed: int = 0) -> None:
    """Refuse measures that the data do not have, before anything is trained.

    Raises:
        RecipeError: a measure of images, and the data are texts, or images of other than one or three channels; the
            network is in shards.
    """
    taker(recipe)
    images = [name for name in recipe.measures if MEASURES[name].images]
    if not images:
        return
    splits = load_splits(recipe.data, data_dir, seed, tokenizer=recipe.model.tokenizer)
    others = ",".join(name for name in recipe.measures if name not in images) or "calibration"
    if splits.vocabulary is not None:
        raise RecipeError(
            f"measures: {', '.join(images)} are of images, and {recipe.data.name} are texts: --measures {others}"
        )
    if splits.shape[0] not in (1, 3):
        raise RecipeError(
            f"measures: {', '.join(images)} are of images in grey or colour, and those of {recipe.data.name} have "
            f"{splits.shape[0]} channels: --measures {others}"
        )


def _function(name: str) -> Callable[[Subject], dict[str, float]]:
    module, _, function = MEASURES[name].path.partition(":")
    found: Callable[[Subject], dict[str, float]] = getattr(
        importlib.import_module(f"bisam_lab.measures.{module}"), function
    )
    return found
