"""What the shell offers for the words of a command: recipes, methods, fields and their values."""

from typing import get_args

import typer

__all__ = ["complete_field", "complete_method", "complete_name", "complete_recipe"]


def complete_name(incomplete: str) -> list[str]:
    """Return the names of the recipes that come with the library and begin so."""
    from .. import recipe as recipes  # here, as in all that follows: --help reads no recipe

    return [name for name in recipes.names() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of recipes that begin so; those of fields, too, for the recipe may be left out."""
    from ..recipe.fields import fields

    return [
        *complete_name(incomplete),
        *(f"{name}=" for name in fields() if incomplete and name.startswith(incomplete)),
    ]


def complete_method(incomplete: str) -> list[str]:
    """Return the names of methods that begin so; after a ``+`` or a comma, those that the last part begins."""
    from ..registry.method_names import METHOD_NAMES

    start = max(incomplete.rfind("+"), incomplete.rfind(",")) + 1
    given = incomplete[:start].replace("+", ",").split(",")
    return [
        incomplete[:start] + name
        for name in METHOD_NAMES
        if name.startswith(incomplete[start:]) and (name not in given or name == incomplete[start:])
    ]


def complete_field(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the fields that begin so, as ``train.lr=``; after the ``=`` the values, where there are some to name.

    Bash splits a word at its ``=``: there the field is the word before.
    """
    from ..recipe.fields import fields

    words = [word for word in (ctx.params.get("recipe"), *(ctx.params.get("overrides") or ())) if word]
    before = words[-2] if len(words) > 1 and words[-1] == "=" else words[-1] if words else ""
    if before in fields() and "=" not in incomplete and (words[-1] == "=" or not incomplete):
        return [(value, "") for value in _values(before) if value.startswith(incomplete)]
    name, equals, value = incomplete.partition("=")
    if equals:
        return [(f"{name}={known}", "") for known in _values(name) if known.startswith(value)]
    return [
        (f"{name}=", (field.description or "").split(";")[0].replace("[", "("))
        for name, field in fields().items()
        if name.startswith(incomplete)
    ]


def _values(name: str) -> list[str]:
    """Return the values that a field takes, where they can be counted."""
    from ..recipe.fields import fields
    from ..registry.metrics import METRICS
    from ..registry.optimizers import OPTIMIZERS

    if name == "data.name":
        from ..datasets.registry import SETS

        return [entry for entry, known in SETS.items() if known.read is not None]
    named = {"train.optimizer": tuple(OPTIMIZERS), "data.metric": tuple(METRICS)}
    if name in named:
        return list(named[name])
    kind = fields()[name].annotation if name in fields() else None
    return ["true", "false"] if kind is bool else [value for value in get_args(kind) if isinstance(value, str)]
