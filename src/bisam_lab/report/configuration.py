"""A study's configuration: the recipe's lines in YAML, and the facts at the head of a study."""

from collections.abc import Iterator
from typing import Any

import yaml

from ..recipe import Recipe

__all__ = ["facts", "lines", "text"]

#: Fields that every study sets. They are never marked as different from the defaults.
_OWN = (
    *("name", "description", "methods", "seeds", "first_seed", "variants", "measures"),
    *("margin", "hypotheses", "stopping"),
)

#: Name and field of each fact at the head of a study.
_FACTS = (
    ("data", "data.name"),
    ("wrong labels", "data.label_noise"),
    ("long tail", "data.imbalance"),
    ("model", "model.name"),
    ("optimizer", "train.optimizer"),
    ("learning rate", "train.lr"),
    ("epochs", "train.epochs"),
    ("batch", "train.batch_size"),
    ("rho", "sharpness.rho"),
    ("seeds", "seeds"),
    ("first seed", "first_seed"),
)


def text(recipe: dict[str, Any]) -> str:
    """Return a recipe as a YAML file."""
    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def lines(recipe: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the recipe's lines in YAML, each with whether its value differs from the default."""
    defaults = Recipe.model_construct().model_dump(mode="json")  # without validation, which would import torch
    for key, value in recipe.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict) and value and key not in _OWN:
            yield f"{key}:", False
            for inner, setting in value.items():
                for line in text({inner: setting}).splitlines():
                    yield f"  {line}", setting != default.get(inner)
        else:
            for line in text({key: value}).splitlines():
                yield line, key not in _OWN and value != default


def facts(recipe: dict[str, Any], *, run: bool = False, tuning: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each fact, except for fields that the variants set.

    Args:
        recipe: read without validation.
        run: of single runs: what the recipe says of seeds does not hold for them.
        tuning: of a tuning: nor do the radius and the seeds.
    """
    hidden = ("seeds", "first seed") if run else ("seeds", "first seed", "rho") if tuning else ()
    variants = recipe.get("variants")
    settings = variants.values() if isinstance(variants, dict) else ()
    set_apart = {key for chosen in settings if isinstance(chosen, dict) for key in chosen}
    for name, key in _FACTS:
        part: Any = recipe
        for word in key.split("."):
            part = part.get(word) if isinstance(part, dict) else None
        if part and key not in set_apart and name not in hidden:
            yield name, str(part)
