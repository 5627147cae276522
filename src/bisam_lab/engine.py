"""The engine of a run: Lightning Fabric, and the base optimizer with a method around it, as a recipe says."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from bisam import SharpnessAware

from .data import Splits, load_splits
from .fabric import Fabric
from .method import Method
from .models import build_model
from .recipe import Recipe, TrainRecipe

__all__ = ["build_fabric", "build_optimizer", "load_examples_and_model"]


def load_examples_and_model(recipe: Recipe, data_dir: Path | None, seed: int) -> tuple[Splits, nn.Module]:
    """Read and split the data, and build the network for them; both depend on the seed alone.

    Raises:
        RecipeError: data that are missing, a network that cannot be built.
    """
    splits = load_splits(recipe.data, data_dir, seed, tokenizer=recipe.model.tokenizer)
    Fabric.seed_everything(seed, verbose=False)
    return splits, build_model(recipe.model, splits.shape, splits.classes, splits.vocabulary)


def build_optimizer(name: str, recipe: Recipe, model: nn.Module, steps: int) -> SharpnessAware:
    """Build the recipe's optimizer, and around it the method of that name, for a training of so many steps.

    Raises:
        ValueError: a name that is no method's, or that of another plain optimizer than the recipe's.
    """
    t, s = recipe.train, recipe.sharpness
    method = Method(name, s.options)
    if method.plain and name != t.optimizer:
        raise ValueError(f"{name!r} is not the recipe's optimizer, train.optimizer={t.optimizer}")
    return method.build(
        _base(t, model.parameters()),
        model=model,
        rho=method.radius(s.rho, s.radii),
        descent=nn.CrossEntropyLoss(label_smoothing=t.label_smoothing),
        steps=steps,
        epochs=t.epochs,
        mu=s.mu,
        alpha=s.alpha,
    )


def _base(recipe: TrainRecipe, params: Iterable[nn.Parameter]) -> Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(params, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(params, lr=recipe.lr, weight_decay=recipe.weight_decay)


def build_fabric(recipe: Recipe) -> Fabric:
    """Launch Fabric as the recipe says."""
    with _quiet():
        fabric = Fabric(
            accelerator=recipe.engine.accelerator,
            strategy=recipe.engine.strategy,
            precision=recipe.engine.precision,
            devices=1,
        )
        fabric.launch()
    return fabric


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
