"""The base optimizer that a recipe names.

It is one of :data:`~bisam_lab.registry.optimizers.OPTIMIZERS`, or any class or function by its import path. That is
called as ``NAME(params, lr=..., weight_decay=..., **train.optimizer_options)``, without ``lr`` or ``weight_decay``
where it does not take them.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..recipe import RecipeError, TrainRecipe
from ..recipe.imported import call_arguments, explained, imported
from ..registry.optimizers import OPTIMIZERS

__all__ = ["base_arguments", "build_base", "set_training", "stale_statistics"]

#: What to do about a class that refuses the network's parameters or its arguments.
_REMEDY = (
    "see train.optimizer_options; for a class that takes only some parameters, name a function of your own, "
    "file.py:NAME, that takes all of them and returns one optimizer"
)


def build_base(recipe: TrainRecipe, model: nn.Module) -> Optimizer:
    """Build the base optimizer of the network's parameters.

    Raises:
        RecipeError: it cannot be found, refuses its arguments or the parameters, is not an optimizer, or has no
            learning rate for the schedule.
    """
    kind, arguments = base_arguments(recipe)
    what = _what(recipe)
    with explained(what, _REMEDY):
        base = kind(list(model.parameters()), **arguments)
        if recipe.optimizer not in OPTIMIZERS:
            _try_out(kind([nn.Parameter(p.detach().clone()) for p in model.parameters()], **arguments))
    if not isinstance(base, Optimizer):
        raise RecipeError(f"{what} returned a {type(base).__name__}; it must return a torch.optim.Optimizer")
    if any("lr" not in group for group in base.param_groups):
        raise RecipeError(f"{what} has no lr for train.schedule to set; choose another optimizer")
    return base


def base_arguments(recipe: TrainRecipe) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class of the base optimizer, or the function that builds it, and the keyword arguments.

    Raises:
        RecipeError: it cannot be found, or cannot be called with the arguments.
    """
    what, kind, options = _what(recipe), _kind(recipe), recipe.optimizer_options
    fields = OPTIMIZERS[recipe.optimizer].reads if recipe.optimizer in OPTIMIZERS else ("lr", "weight_decay")
    twice = [field for field in fields if field in options]
    if twice:
        raise RecipeError(f"train.optimizer_options.{twice[0]}: leave it out, and set train.{twice[0]}")
    arguments = call_arguments(
        what,
        kind,
        [],
        given=options,
        offered={field: getattr(recipe, field) for field in fields},
        remedy="train.optimizer_options gives it the rest",
    )
    if "lr" not in arguments:
        raise RecipeError(f"{what} takes no lr, which train.lr and train.schedule set; choose another optimizer")
    default = type(recipe).model_fields["weight_decay"].default
    if "weight_decay" not in arguments and recipe.weight_decay not in (0, default):
        raise RecipeError(f"{what} takes no weight_decay: leave train.weight_decay={recipe.weight_decay} out")
    return kind, arguments


def set_training(base: Optimizer) -> None:
    """Switch an optimizer with modes, such as a schedule-free one, to training."""
    if _has_modes(base):
        base.train()  # type: ignore[attr-defined]


def stale_statistics(base: Optimizer, model: nn.Module) -> str | None:
    """Return a warning if the network's running statistics are not those of the weights that are evaluated."""
    if not _has_modes(base) or not any(getattr(module, "track_running_stats", False) for module in model.modules()):
        return None
    return (
        f"{type(base).__name__} evaluates other weights than it trains, and the running statistics of BatchNorm are "
        "those of the trained weights: scores can be far too low; choose a network without BatchNorm"
    )


def _has_modes(base: Optimizer) -> bool:
    return callable(getattr(base, "train", None))


def _try_out(base: Any) -> None:
    """Take one step with zero gradients: some optimizers refuse a parameter only in a step."""
    if not isinstance(base, Optimizer):
        return
    set_training(base)
    for group in base.param_groups:
        for param in group["params"]:
            param.grad = torch.zeros_like(param)
    with torch.random.fork_rng(devices=[]):
        base.step()


def _kind(recipe: TrainRecipe) -> Callable[..., Any]:
    """Return the class of the optimizer, or the function that builds it."""
    if recipe.optimizer not in OPTIMIZERS:
        kind: Callable[..., Any] = imported("train.optimizer", recipe.optimizer)
        return kind
    module, _, name = OPTIMIZERS[recipe.optimizer].path.partition(":")
    built_in: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return built_in


def _what(recipe: TrainRecipe) -> str:
    """Return the beginning of a message about the optimizer."""
    return f"train.optimizer={recipe.optimizer!r}: {recipe.optimizer.rpartition(':')[2]}"
