"""A recipe as lines of YAML, each with the word whether it differs from the defaults."""

from collections.abc import Iterator
from typing import Any

import yaml

from ..recipe import Recipe

__all__ = ["facts", "lines", "text"]

#: Fields that every study sets; to mark them would say nothing.
_OWN = ("name", "description", "methods", "seeds", "variants")


def text(recipe: dict[str, Any]) -> str:
    """Return a recipe as a YAML file."""
    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def lines(recipe: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the recipe's lines in YAML, and whether each is of a value other than the default."""
    defaults = Recipe.model_construct().model_dump(mode="json")  # not validated: that would import torch
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


def facts(recipe: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a reader wants to know of a recipe first; what it does not say is left out."""
    parts = {key: part if isinstance(part, dict) else {} for key, part in recipe.items()}
    data, model, train = parts.get("data", {}), parts.get("model", {}), parts.get("train", {})
    noise = data.get("label_noise")
    wrong = f", {100 * noise:g} % of the training labels wrong" if isinstance(noise, int | float) and noise else ""
    found = {
        "data": f"{data['name']}{wrong}" if "name" in data else None,
        "model": model.get("name"),
        "optimizer": train.get("optimizer"),
        "learning rate": train.get("lr"),
        "epochs": train.get("epochs"),
        "batch": train.get("batch_size"),
        "rho": parts.get("sharpness", {}).get("rho"),
        "seeds": recipe.get("seeds"),
    }
    for name, fact in found.items():
        if fact is not None:
            yield name, str(fact)
