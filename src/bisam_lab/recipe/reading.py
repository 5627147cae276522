"""Recipes by name or from a file: read, overridden word by word, validated, and explained where they are wrong."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import LONGEST_LINE, RecipeError, nearest, one_line, shown
from ..plain_yaml import LARGEST_YAML, parse_yaml
from ..untrusted import check_plain, check_text, read_text, special_file
from .explaining import explain_all
from .hypotheses import check_variants
from .schema import Recipe, over

__all__ = [
    "RecipeError",
    "changed",
    "differences",
    "load",
    "methods_of",
    "names",
    "only",
    "outline",
    "text",
    "variant",
]


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
        raise RecipeError(f"recipe {name!r} is no name of `bisam recipes list`{nearest(name, names())}")
    return (resources.files("bisam_lab") / "recipes" / f"{name}.yaml").read_text()


def outline(name: str) -> dict[str, Any]:
    """Return the fields of a shipped recipe, defaults included, without checking them, which imports torch.

    Raises:
        RecipeError: no such recipe.
    """
    return over(Recipe.model_construct().model_dump(mode="json"), parse_yaml(text(name), name))


def methods_of(recipe: str | Path) -> list[str]:
    """Return the methods that a recipe's file names, without checking them; none where it cannot be read.

    Raises:
        RecipeError: no such recipe, or broken YAML.
    """
    found = _read(recipe).get("methods", Recipe.model_fields["methods"].default)
    return [str(name) for name in found] if isinstance(found, list | tuple) else []


#: Stands for a field that a variant does not set.
_ABSENT = object()


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
    if not isinstance(small, dict) and (smoke or small is not None):
        raise RecipeError(f"recipe {str(recipe)!r} has no smoke size: give it a mapping `smoke:` of dotted.key: value")
    if smoke:
        for key, value in (small or {}).items():
            _set(fields, str(key).split("."), value)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {shown(override)} must look like train.lr=0.05")
        check_text("an override", key)
        _set(fields, key.split("."), parse_yaml(value, override))
    found = _validated(fields)
    for name in found.variants:
        variant(found, name)
    check_variants(found.hypotheses, found.variants)
    _check_effect(found, overrides)
    return found


def _check_effect(recipe: Recipe, overrides: Sequence[str]) -> None:
    """Refuse an override of a field that every variant sets to something else.

    Raises:
        RecipeError: there is one.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        theirs = [settings.get(key, _ABSENT) for settings in recipe.variants.values()]
        if theirs and all(each is not _ABSENT and each != parse_yaml(value, override) for each in theirs):
            raise RecipeError(
                f"{shown(override)} has no effect: each variant of {shown(recipe.name)} sets {key}; add variants={{}}"
            )


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
    try:
        return _validated(fields)
    except RecipeError as error:
        raise RecipeError(f"variants.{name}: {error}") from None


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
    """Return the recipe with only these of its variants. Hypotheses about others stay, and stay undecided.

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
        lines = explain_all(error.errors()).split("\n")
        raise RecipeError("\n".join(one_line(line, LONGEST_LINE) for line in lines)) from None


def _read(recipe: str | Path) -> dict[str, Any]:
    check_text("recipe", str(recipe))
    if str(recipe) in names():
        content = text(str(recipe))
    elif Path(recipe).is_file() or special_file(Path(recipe)):
        content = read_text(Path(recipe), 4 * LARGEST_YAML)
    else:
        near = nearest(str(recipe), names())
        raise RecipeError(f"recipe {shown(str(recipe))} is neither a file nor a name of `bisam recipes list`{near}")
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


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted names of the values that differ between two plain recipes, and the values."""
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after
