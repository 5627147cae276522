"""Networks of the user's own, by import path."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from ..recipe import RecipeError
from ..recipe.imported import explained, imported

__all__ = ["build_imported"]


def build_imported(name: str, options: dict[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call ``package.module:NAME`` or ``file.py:NAME`` as NAME(num_classes=classes, **options).

    Files, and packages that are not installed, are looked for from the working directory. A NAME with an argument
    ``channels``, ``in_channels`` or ``in_chans`` is given that of the images, unless the options do.

    Raises:
        RecipeError: no such file, module or name; one that cannot be called so, raises, or returns no module.
    """
    attribute = name.rpartition(":")[2]
    target = imported("model.name", name)
    if isinstance(target, nn.Module):
        raise RecipeError(
            f"model.name={name!r}: {attribute} is a network already, which every run would train on; name its class, "
            "or a function that returns a new one"
        )
    arguments = _arguments(name, target, {"num_classes": classes, **options}, shape)
    with explained(f"model.name={name!r}: {attribute}"):
        model = target(**arguments)
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"model.name={name!r}: {attribute} returned a {type(model).__name__}; it must return a torch.nn.Module"
        )
    return model


def _arguments(
    name: str, target: Callable[..., Any], arguments: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some that are written in C have none
        return arguments
    if len(shape) == 3:
        wanted = {"channels", "in_channels", "in_chans"} & set(signature.parameters)
        arguments = {**dict.fromkeys(sorted(wanted), shape[0]), **arguments}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise RecipeError(
            f"model.name={name!r}: {name.rpartition(':')[2]}{signature} cannot be called with "
            f"{', '.join(f'{key}={value!r}' for key, value in arguments.items())}: {error}; it must take num_classes, "
            "and model.options gives it the rest"
        ) from None
    return arguments
