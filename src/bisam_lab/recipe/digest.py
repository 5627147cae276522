"""The digest of a recipe: two runs whose recipes have one digest can be compared, and no others."""

import hashlib
import json
from typing import Any

from .schema import FREE, Recipe

__all__ = ["digest"]


def digest(recipe: Recipe) -> str:
    """Return 16 hexadecimal digits that stand for all that decides what comes out of a run, but its method and seed.

    Fields at their defaults do not count. So a field that a later version adds changes no digest.
    """
    fields = recipe.model_dump(mode="json", exclude_defaults=True, exclude=set(FREE))
    text = json.dumps(_alike(fields), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _alike(value: Any) -> Any:
    """Return a value in which numbers that are equal are written alike: 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _alike(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_alike(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
