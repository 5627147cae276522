"""Recipes by name or from a file: read, overridden word by word, validated, and explained where they are wrong."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import LONGEST_LINE, RecipeError, nearest, one_line, shown
from ..plain_yaml import LARGEST_YAML, parse_yaml
from ..untrusted import check_plain, check_text, read_text, special_file
from .schema import Recipe

__all__ = ["RecipeError", "changed", "differences", "load", "names", "only", "outline", "text", "variant", "words"]


def names() -> list[str]:
    """Return the names of the recipes that ship with the library."""
    folder = resources.files("bisam_lab") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def text(name: str) -> str:
    """Return a shipped recipe as it stands in its file, comments included.

    Raises:
        RecipeError: no such recipe.
    """
    if name not in names():
        raise RecipeError(f"recipe {name!r} is none of {', '.join(names())}{nearest(name, names())}")
    return (resources.files("bisam_lab") / "recipes" / f"{name}.yaml").read_text()


def outline(name: str) -> dict[str, Any]:
    """Return the fields of a shipped recipe, defaults included, without checking them, which imports torch.

    Raises:
        RecipeError: no such recipe.
    """
    return _over(Recipe.model_construct().model_dump(mode="json"), parse_yaml(text(name), name))


def _over(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with the given values in place; sections that are in both are merged."""
    sections = {key for key in given if isinstance(given[key], dict) and isinstance(defaults.get(key), dict)}
    return {**defaults, **given, **{key: _over(defaults[key], given[key]) for key in sections}}


def load(recipe: str | Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> Recipe:
    """Read a recipe by its name or path and apply ``dotted.key=value`` overrides, values in YAML.

    Args:
        recipe: name or path.
        overrides: applied last, in order.
        smoke: apply the recipe's own ``smoke`` overrides first: the same study at a size that runs in a minute.

    Raises:
        RecipeError: no such recipe, broken YAML, an unknown key, an impossible value, no smoke size.
    """
    fields = _read(recipe)
    small = fields.pop("smoke", None)
    if smoke:
        if not isinstance(small, dict):
            raise RecipeError(
                f"recipe {str(recipe)!r} has no smoke size: give it a mapping `smoke:` of dotted.key: value"
            )
        for key, value in small.items():
            _set(fields, str(key).split("."), value)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {shown(override)} must look like train.lr=0.05")
        check_text("an override", key)
        _set(fields, key.split("."), parse_yaml(value, override))
    return _validated(fields)


def variant(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with a variant's settings in place, and no variants; the empty name is the recipe itself.

    Raises:
        RecipeError: no such variant, or one whose settings are impossible.
    """
    fields = recipe.model_dump(mode="json") | {"variants": {}}
    if name:
        if name not in recipe.variants:
            known = ", ".join(recipe.variants) or "none"
            raise RecipeError(f"variant {name!r} is none of the recipe's, {known}{nearest(name, recipe.variants)}")
        for key, value in recipe.variants[name].items():
            _set(fields, key.split("."), value)
    return _validated(fields)


def changed(recipe: Recipe, settings: Mapping[tuple[str, ...], Any]) -> Recipe:
    """Return the recipe with other values; each key is the way to a field, such as ``("train", "lr")``.

    Raises:
        RecipeError: no such field, or an impossible value.
    """
    fields = recipe.model_dump(mode="json")
    for path, value in settings.items():
        _set(fields, path, value)
    return _validated(fields)


def only(recipe: Recipe, variants: Sequence[str]) -> Recipe:
    """Return the recipe with only these of its variants.

    Raises:
        RecipeError: one that it does not have.
    """
    for name in variants:
        variant(recipe, name)
    return recipe.model_copy(update={"variants": {name: recipe.variants[name] for name in variants}})


def _validated(fields: dict[str, Any]) -> Recipe:
    check_plain(fields)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        wrong = [one_line(_explain(e, fields), LONGEST_LINE) for e in error.errors()]
        more = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise RecipeError("\n".join([*wrong[:5], *more])) from None


def words(recipe: str, overrides: Sequence[str] | None) -> tuple[str, list[str]]:
    """Return the recipe and the overrides of a command line.

    The recipe may be left out: then it is ``digits``, or ``own`` where data or a model are named.
    """
    given = list(overrides or [])
    if "=" in recipe and not Path(recipe).exists():
        given = [recipe, *given]
        named = any(word.startswith(("data.name=", "model.name=")) for word in given)
        return "own" if named else "digits", given
    return recipe, given


def _read(recipe: str | Path) -> dict[str, Any]:
    check_text("recipe", str(recipe))
    if str(recipe) in names():
        content = text(str(recipe))
    elif Path(recipe).is_file() or special_file(Path(recipe)):
        content = read_text(Path(recipe), 4 * LARGEST_YAML)
    else:
        near = nearest(str(recipe), names())
        raise RecipeError(f"recipe {shown(str(recipe))} is neither a file nor one of `bisam recipes list`{near}")
    fields = parse_yaml(content, str(recipe))
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {shown(str(recipe))} must be a mapping of fields, such as `train: {{lr: 0.05}}`")
    return fields


def _set(fields: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = fields.setdefault(key, {})
        if not isinstance(inner, dict):
            dotted = one_line(".".join(path), 80)
            raise RecipeError(f"{dotted} does not exist: {one_line(key, 40)} has no fields of its own")
        fields = inner
    fields[path[-1]] = value


def _explain(error: Any, fields: dict[str, Any]) -> str:
    """Say what is wrong with one field, and name the nearest thing that would be right."""
    where = [str(part) for part in error["loc"]]
    dotted = ".".join(where) or "recipe"
    if error["type"] == "extra_forbidden":
        part = _part_at(where[:-1])
        near = nearest(where[-1], part.model_fields) or _elsewhere(where[-1])
        return f"{dotted}: unknown key{near or '; it may have: ' + ', '.join(part.model_fields)}"
    if error["type"] == "literal_error":
        allowed = [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return (
            f"{dotted}={error['input']!r}: must be one of {', '.join(allowed)}{nearest(str(error['input']), allowed)}"
        )
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message.startswith("Input") else message
    return f"{dotted}={error['input']!r}: {message}" if error["type"] != "value_error" else f"{dotted}: {message}"


def _part_at(path: Iterable[str]) -> type[BaseModel]:
    part: type[BaseModel] = Recipe
    for key in path:
        inner = part.model_fields[key].annotation
        part = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else get_args(inner)[0]
    return part


def _elsewhere(key: str) -> str:
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
    return f": did you mean {keys[found[0]]}?" if found else ""


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted names of the values that differ between two plain recipes, and the values."""
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after
