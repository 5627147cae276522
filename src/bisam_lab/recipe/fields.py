"""The fields of a recipe by their dotted names, and the short names that stand for one of them alone."""

from functools import cache

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .schema import Recipe

__all__ = ["fields", "full_name"]

#: Other words for a field.
_ALIASES = {
    "arch": "model.name",
    "batch": "train.batch_size",
    "data": "data.name",
    "dataset": "data.name",
    "device": "engine.accelerator",
    "learning_rate": "train.lr",
    "model": "model.name",
    "network": "model.name",
    "optim": "train.optimizer",
    "wd": "train.weight_decay",
}


@cache
def fields() -> dict[str, FieldInfo]:
    """Return every field that is no section, by its dotted name, in the order of the recipe."""
    found: dict[str, FieldInfo] = {}
    for name, field in Recipe.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            found |= {f"{name}.{inner}": value for inner, value in part.model_fields.items()}
        else:
            found[name] = field
    return found


@cache
def _short_names() -> dict[str, str]:
    """Return the last words of the dotted names that belong to one field alone, and the aliases."""
    last = [name.rpartition(".")[2] for name in fields()]
    return {word: name for word, name in zip(last, fields(), strict=True) if last.count(word) == 1} | _ALIASES


def full_name(key: str) -> str | None:
    """Return the dotted name of the field that a word stands for: ``lr``, ``batch-size``, ``radii.asam``, ``train.lr``.

    None: no field alone has this name.
    """
    head, dot, rest = key.replace("-", "_").partition(".")
    if f"{head}{dot}{rest}" in fields():
        return f"{head}{dot}{rest}"
    if dot and head in Recipe.model_fields:
        known = next((name for name in fields() if key.startswith(f"{name}.")), None)
        return key if known else None
    found = _short_names().get(head)
    return None if found is None else f"{found}{dot}{key.partition('.')[2]}"
