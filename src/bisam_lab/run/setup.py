"""What a run starts from: the examples and the network."""

from pathlib import Path

import torch
from torch import nn

from bisam._vectors.random import seeded

from ..data import Splits, load_splits
from ..models import build_model
from ..models.published import located
from ..recipe import EngineRecipe, Recipe, RecipeError
from .base_optimizer import build_base
from .fabric import Fabric

__all__ = ["alone_in_norms", "check", "load_examples_and_model", "own_noise", "synchronised"]


def load_examples_and_model(recipe: Recipe, data_dir: Path | None, seed: int) -> tuple[Splits, nn.Module]:
    """Read and split the data, and build the network for them. Both depend only on the seed.

    Raises:
        RecipeError: data are missing, or the network cannot be built.
    """
    model = located(recipe.model, data_dir)
    splits = load_splits(recipe.data, data_dir, seed, tokenizer=model.tokenizer)
    Fabric.seed_everything(seed, verbose=False)
    return splits, build_model(model, splits.shape, splits.classes, splits.vocabulary)


def synchronised(engine: EngineRecipe, model: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with BatchNorm over all processes, where the recipe wants it; torch has it for GPUs alone."""
    if engine.sync_batchnorm and engine.processes > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def alone_in_norms(engine: EngineRecipe, device: torch.device) -> str:
    """Return a sentence for who wants BatchNorm over all processes and cannot have it; empty: nothing to say."""
    if not (engine.sync_batchnorm and engine.processes > 1) or device.type == "cuda":
        return ""
    return (
        f"engine.sync_batchnorm=true: torch has it for GPUs alone, and this is {device.type}: BatchNorm takes its "
        "statistics of each process's part of a batch"
    )


def own_noise(seed: int, rank: int, *where: int) -> None:
    """Let process number ``rank`` draw other random numbers than the first: dropout masks examples of its own."""
    if rank:
        Fabric.seed_everything(seeded(seed, rank, *where) % 2**32, verbose=False)


def check(recipe: Recipe, data_dir: Path | None, seed: int = 0) -> str:
    """Find the errors that every run of the recipe would have, before any process starts.

    Returns:
        One sentence about the data for the user; empty: nothing to say.

    Raises:
        RecipeError: data are missing, the network or the base optimizer cannot be built, or a run takes several nodes.
    """
    if recipe.engine.nodes > 1:
        raise RecipeError(
            f"engine.nodes={recipe.engine.nodes}: each run of a study takes the devices of one machine: bisam train "
            "trains one run on several, with --method and --seed"
        )
    splits, model = load_examples_and_model(recipe, data_dir, seed)
    build_base(recipe.train, model)
    return splits.note
