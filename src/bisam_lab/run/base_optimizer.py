"""The base optimizer that a recipe names.

It is one of :data:`~bisam_lab.registry.optimizers.OPTIMIZERS`, or any class or function by its import path, called as
``NAME(params, lr=..., weight_decay=..., **train.optimizer_options)``. Of ``lr`` and ``weight_decay`` it is given what
it takes.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..recipe import RecipeError, TrainRecipe
from ..recipe.imported import explained, imported
from ..recipe.known import nearest
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
        RecipeError: it cannot be found, refuses its arguments or the parameters, is no optimizer, or has no learning
            rate that a schedule can set.
    """
    kind, arguments = base_arguments(recipe)
    what = f"train.optimizer={recipe.optimizer!r}: {_name(recipe)}"
    with explained(what, _REMEDY):
        base = kind(list(model.parameters()), **arguments)
        if recipe.optimizer not in OPTIMIZERS:
            _try_out(kind([nn.Parameter(p.detach().clone()) for p in model.parameters()], **arguments))
    if not isinstance(base, Optimizer):
        raise RecipeError(f"{what} returned a {type(base).__name__}; it must return a torch.optim.Optimizer")
    if any("lr" not in group for group in base.param_groups):
        raise RecipeError(f"{what} has no lr that train.schedule could set; choose another optimizer")
    return base


def base_arguments(recipe: TrainRecipe) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the base optimizer's class, or the function that makes it, and its keyword arguments.

    Raises:
        RecipeError: it cannot be found, or cannot be called with these arguments.
    """
    kind, fields = _kind(recipe)
    options = recipe.optimizer_options
    twice = [field for field in fields if field in options]
    if twice:
        raise RecipeError(f"train.optimizer_options.{twice[0]}: leave it out, and set train.{twice[0]}")
    default = type(recipe).model_fields["weight_decay"].default
    if "weight_decay" not in fields and recipe.weight_decay not in (0, default):
        raise RecipeError(
            f"train.weight_decay={recipe.weight_decay}: {_name(recipe)} takes none; leave it out, or set it to 0"
        )
    arguments = {field: getattr(recipe, field) for field in fields} | options
    _check(_name(recipe), kind, arguments)
    return kind, arguments


def set_training(base: Optimizer) -> None:
    """Put an optimizer with modes, such as a schedule-free one, into that for training."""
    if _has_modes(base):
        base.train()  # type: ignore[attr-defined]


def stale_statistics(base: Optimizer, model: nn.Module) -> str | None:
    """Return a warning where the network's running statistics are not those of the weights that are evaluated."""
    if not _has_modes(base) or not any(getattr(module, "track_running_stats", False) for module in model.modules()):
        return None
    return (
        f"{type(base).__name__} is evaluated at other weights than it trains at, but BatchNorm's running statistics "
        "are those of the training weights: scores can be far too low; choose a network without BatchNorm"
    )


def _has_modes(base: Optimizer) -> bool:
    return callable(getattr(base, "train", None))


def _try_out(base: Any) -> None:
    """Take a step with gradients of zero, so that what only a step refuses is told before the training."""
    if not isinstance(base, Optimizer):
        return
    set_training(base)
    for group in base.param_groups:
        for param in group["params"]:
            param.grad = torch.zeros_like(param)
    with torch.random.fork_rng(devices=[]):
        base.step()


def _kind(recipe: TrainRecipe) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return what makes the optimizer, and the fields of ``train`` that are its arguments."""
    if recipe.optimizer in OPTIMIZERS:
        entry = OPTIMIZERS[recipe.optimizer]
        module, _, name = entry.path.partition(":")
        return getattr(importlib.import_module(module), name), entry.reads
    kind = imported("train.optimizer", recipe.optimizer)
    try:
        inspect.signature(kind)
    except ValueError:
        raise RecipeError(f"train.optimizer={recipe.optimizer!r}: {_name(recipe)} is no optimizer's class") from None
    taken = _declared(kind)
    return kind, tuple(field for field in ("lr", "weight_decay") if field in taken or _takes_any(kind))


def _check(name: str, kind: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse an argument that ``kind`` does not take, and one that is missing."""
    taken = _declared(kind)
    for key in arguments:
        if key not in taken and not _takes_any(kind):
            raise RecipeError(
                f"train.optimizer_options.{key}: {name} has no such argument"
                f"{nearest(key, taken) or '; it takes ' + ', '.join(taken)}"
            )
    try:
        inspect.signature(kind).bind([], **arguments)
    except TypeError as error:
        raise RecipeError(
            f"train.optimizer: {name} cannot be called with {', '.join(arguments)}: {error}; "
            "train.optimizer_options gives it the rest"
        ) from None


def _name(recipe: TrainRecipe) -> str:
    """Return the class's name, or the short one."""
    return recipe.optimizer.rpartition(":")[2]


def _declared(kind: Callable[..., Any]) -> list[str]:
    """Return the names of its arguments, without the first, the parameters, and without ``**kwargs``."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(kind).parameters.values() if p.kind in named][1:]


def _takes_any(kind: Callable[..., Any]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(kind).parameters.values())
