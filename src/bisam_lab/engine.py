"""The engine of a run: Lightning Fabric, and the base optimizer with a method around it, as a recipe says."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from bisam import SharpnessAware

from .fabric import Fabric
from .method import Method
from .recipe import Recipe, TrainRecipe

__all__ = ["build_fabric", "build_optimizer"]


def build_optimizer(name: str, recipe: Recipe, model: nn.Module, steps: int) -> SharpnessAware:
    """Build the recipe's optimizer, and around it the method of that name, for a training of so many steps."""
    t, s = recipe.train, recipe.sharpness
    method = Method(name, s.options)
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
