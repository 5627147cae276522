"""What a study's folder holds, read and never changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..recipe import RecipeError
from ..result import RunResult

__all__ = ["recipe_of", "results_of", "unreadable"]


def results_of(folder: Path) -> list[RunResult]:
    """Read every finished run in a study's folder; unreadable ones are left out."""
    return [result for _, result in _results(folder) if result is not None]


def unreadable(folder: Path) -> list[str]:
    """Return the places, inside the folder, of results that cannot be read."""
    return [str(path.relative_to(folder)) for path, result in _results(folder) if result is None]


def recipe_of(folder: Path) -> dict[str, Any]:
    """Read a study's recipe as it stands there, whichever version wrote it.

    Raises:
        RecipeError: the folder is missing, empty or no study's, or the recipe is damaged.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder} is no folder: name the folder of a study, as --out of bisam compare did")
    path = folder / "recipe.yaml"
    if not path.is_file():
        studies = [str(inner.parent) for inner in sorted(folder.glob("*/recipe.yaml"))]
        hint = f"did you mean {', '.join(studies)}?" if studies else "it is no folder of a study"
        raise RecipeError(f"{folder} {'is empty' if not any(folder.iterdir()) else 'has no recipe.yaml'}: {hint}")
    fields: Any
    try:
        fields = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("methods"), list) or not fields["methods"]:
        raise RecipeError(f"{path} is no recipe of a study: it should be a mapping with a list of methods")
    return fields


def _results(folder: Path) -> Iterator[tuple[Path, RunResult | None]]:
    for path in sorted((folder / "runs").rglob("seed-*/result.json")):
        try:
            result = RunResult.from_dict(json.loads(path.read_text()))
            whole = _typed(result)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            yield path, None
        else:
            yield path, result if whole else None


def _typed(result: RunResult) -> bool:
    """Say whether values have the types that their fields declare, which JSON does not ensure."""
    numbers = [result.test_score, result.validation_score, result.steps_per_second, result.seconds]
    numbers += [value for epoch in result.history for value in (epoch.train_loss, epoch.validation_score)]
    return (
        all(isinstance(number, float | int) for number in numbers)
        and all(isinstance(number, int) for number in [result.seed, *(epoch.epoch for epoch in result.history)])
        and all(isinstance(word, str) for word in (result.method, result.variant, result.metric, result.status))
        and isinstance(result.environment, dict)
    )
