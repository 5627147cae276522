"""What is wrong with a field of a recipe, in the laboratory's own words, with the line that would be right."""

import difflib
import json
from collections.abc import Iterable, Sequence
from textwrap import shorten
from typing import Any, get_args

from pydantic import BaseModel

from ..errors import nearest
from .schema import Recipe

__all__ = ["explain", "plain_value"]

#: What a field of a kind must be, and a line that is right.
_KINDS = {
    "int": "a whole number, such as {key}=2",
    "float": "a number, such as {key}=0.1",
    "bool": "true or false, such as {key}=true",
    "string": "text, such as {key}=name",
    "dict": "a mapping, such as '{key}={{name: value}}'",
    "tuple": "a list, such as {key}=[a,b]",
    "list": "a list, such as {key}=[a,b]",
}
#: What pydantic's limits say.
_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "greater than or equal to"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "less than or equal to"),
}
_LONGEST = 60


def explain(error: Any) -> str:
    """Say what is wrong with one field, and name the nearest thing that would be right.

    Args:
        error: one of the entries of a pydantic ``ValidationError.errors()``.
    """
    where = [str(part) for part in error["loc"] if part != "[key]"]
    dotted, kind, given = ".".join(where) or "recipe", error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"{dotted}: unknown key{_nearest_key(where, given)}"
    if kind == "value_error":
        return f"{dotted}: {error['msg'].removeprefix('Value error, ')}"
    return f"{dotted}={_shown(given)}: must be {_wanted(error, where)}"


def _wanted(error: Any, where: Sequence[str]) -> str:
    """Return what a value must be, after ``must be``."""
    kind, limits, key = error["type"], error.get("ctx", {}), ".".join(where)
    if kind == "literal_error":
        allowed = [word.strip(" '") for word in limits["expected"].replace(" or ", ", ").split(",")]
        return f"one of {', '.join(allowed)}{nearest(str(error['input']), allowed)}"
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {limits[name]:g}"
    if kind == "too_short":
        return f"a list of {limits['min_length']} or more, such as {key}=[a,b]"
    if kind == "finite_number":
        return "a finite number, such as {key}=0.1".format(key=key)
    if kind in ("model_type", "model_attributes_type"):
        part = _part_at(where)
        first = next(iter(part.model_fields))
        return f"a section of fields, such as {key}.{first}={plain_value(error['input']) or '...'}"
    if kind == "invalid_key":
        return "a name: write it as text, in quotation marks"
    family = kind.partition("_")[0]
    return _KINDS.get(family, "another value; `bisam recipes show digits` has an example").format(key=key)


def _nearest_key(where: Sequence[str], given: Any) -> str:
    """Name the known key that is nearest to an unknown one, with the value that was given."""
    part, said = _part_at(where[:-1]), plain_value(given)
    known = _elsewhere(where[-1])
    near = difflib.get_close_matches(where[-1], part.model_fields, n=1)
    found = ".".join([*where[:-1], near[0]]) if near else known
    if found is None:
        return f"; it may have: {', '.join(part.model_fields)}"
    return f": did you mean {found}{f'={said}' if said else ''}?"


def _elsewhere(key: str) -> str | None:
    """Find a key that the user has put into the wrong section, or misspelt there."""
    sections = {name: f.annotation for name, f in Recipe.model_fields.items()}
    keys = {
        inner: f"{name}.{inner}"
        for name, part in sections.items()
        if isinstance(part, type) and issubclass(part, BaseModel)
        for inner in part.model_fields
    }
    keys |= {name: name for name in sections}
    found = difflib.get_close_matches(key, keys, n=1)
    return keys[found[0]] if found else None


def _part_at(path: Iterable[str]) -> type[BaseModel]:
    part: type[BaseModel] = Recipe
    for key in path:
        inner = part.model_fields[key].annotation
        part = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else get_args(inner)[0]
    return part


def plain_value(value: Any) -> str:
    """Return a number, a word or a truth value as a command line takes it; nothing for what is longer."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if not isinstance(value, int | float | str):
        return ""
    text = str(value) if not isinstance(value, int) or abs(value) < 10**_LONGEST else ""
    return text if 0 < len(text) <= _LONGEST and not any(letter.isspace() for letter in text) else ""


def _shown(value: Any) -> str:
    """Return a value as Python shows it, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return "a number of many digits"
    return shorten(repr(value), _LONGEST, placeholder="...") if len(repr(value)) > _LONGEST else repr(value)
