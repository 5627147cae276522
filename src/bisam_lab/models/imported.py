"""Networks of the user's own, by import path."""

from typing import Any

from torch import nn

from ..recipe import RecipeError
from ..recipe.imported import call_arguments, explained, imported

__all__ = ["build_imported"]


def build_imported(name: str, options: dict[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call ``package.module:NAME`` or ``file.py:NAME`` as NAME(num_classes=classes, **options).

    Files, and packages that are not installed, are looked for from the working directory. A NAME with an argument
    ``channels``, ``in_channels`` or ``in_chans`` is given that of the images, unless the options do.

    Raises:
        RecipeError: no such file, module or name; one that cannot be called so, raises, or returns no module.
    """
    what = f"model.name={name!r}: {name.rpartition(':')[2]}"
    target = imported("model.name", name)
    if isinstance(target, nn.Module):
        raise RecipeError(
            f"{what} is a network already, which every run would train on; name its class, "
            "or a function that returns a new one"
        )
    channels = dict.fromkeys(("channels", "in_channels", "in_chans"), shape[0]) if len(shape) == 3 else {}
    arguments = call_arguments(
        what,
        target,
        given={"num_classes": classes, **options},
        offered=channels,
        remedy="it must take num_classes, and model.options gives it the rest",
    )
    with explained(what):
        model = target(**arguments)
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{what} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model
