"""What is wrong with a field of a recipe, in the laboratory's own words, with the line that would be right."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from ..errors import nearest
from .fields import fields
from .schema import Recipe

__all__ = ["explain", "explain_all", "plain_value"]

#: What a field of a kind must be, and an example.
_KINDS = {
    "int": ("a whole number", "100"),
    "float": ("a number", "0.1"),
    "bool": ("true or false", "true"),
    "string": ("text", "name"),
    "dict": ("a mapping", "{name: value}"),
    "tuple": ("a list", "[a,b]"),
    "list": ("a list", "[a,b]"),
}
#: What pydantic's limits say.
_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "greater than or equal to"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "less than or equal to"),
}
_LONGEST = 60
_MOST = 3


def explain_all(errors: Sequence[Any]) -> str:
    """Say what is wrong, a line for each wrong field; of many, the first three.

    Args:
        errors: what pydantic's ``ValidationError.errors()`` returns.
    """
    within = {error["loc"][:-1] for error in errors}  # a list whose entries are wrong is not too short
    kept = [error for error in errors if error["type"] != "too_short" or error["loc"] not in within]
    lines = list(dict.fromkeys(explain(error) for error in kept))
    more = len(lines) - _MOST
    return "\n".join([*lines[:_MOST], *([f"and {more} more"] if more > 0 else [])])


def explain(error: Any) -> str:
    """Say what is wrong with one field, and name the nearest thing that would be right.

    Args:
        error: one of the entries of a pydantic ``ValidationError.errors()``.
    """
    where = [str(part) for part in error["loc"]]
    dotted, kind, given = ".".join(where) or "recipe", error["type"], error["input"]
    if where[-1:] == ["[key]"] or kind == "invalid_key":
        return f"{'.'.join(where[:-1])}: a name must be text, not {_shown(given)}: write it in quotation marks"
    if kind == "extra_forbidden":
        return f"{dotted}: unknown key{_nearest_key(where, given)}"
    if kind == "missing":
        return f"{'.'.join(where[:-1]) or 'recipe'} has no {where[-1]}: write {where[-1]}: VALUE"
    said = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{dotted}: {said}" if where else said
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
    if kind in ("model_type", "model_attributes_type"):
        first = next(iter(_part_at(where).model_fields))
        return f"a section of fields, such as {key}.{first}={_given(error['input'])}"
    if kind == "too_short":
        return f"a list with something in it, such as {_example(where, '[a,b]')}"
    if kind == "finite_number":
        return f"a finite number, such as {_example(where, '1')}"
    words, example = _KINDS.get(kind.partition("_")[0], ("another value", "value"))
    return f"{words}, such as {_example(where, example)}"


def _example(where: Sequence[str], otherwise: str) -> str:
    """Return a line that is right: the field with its default, or with another example where that says nothing."""
    path = [part for part in where if not part.isdigit()]
    try:
        default = _part_at(path[:-1]).model_fields[path[-1]].default
    except (KeyError, IndexError, AttributeError):
        default = None
    if isinstance(default, tuple):
        default = f"[{','.join(map(str, default))}]"
    plain = "" if default is None else plain_value(default)
    line = f"{'.'.join(path)}={plain or otherwise}"
    return f"'{line}'" if " " in line else line


def _given(value: Any) -> str:
    return "..." if value is None else plain_value(value) or "..."


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
    places: dict[str, list[str]] = {name: [name] for name in Recipe.model_fields}
    for dotted in fields():
        section, dot, inner = dotted.rpartition(".")
        if dot and inner not in Recipe.model_fields:
            places.setdefault(inner, []).append(f"{section}.{inner}")
    found = difflib.get_close_matches(key, places, n=1)
    return " or ".join(places[found[0]]) if found else None


def _part_at(path: Iterable[str]) -> type[BaseModel]:
    part: type[BaseModel] = Recipe
    for key in path:
        if key.isdigit():  # an entry of a list of sections
            continue
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
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
