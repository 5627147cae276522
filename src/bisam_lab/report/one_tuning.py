"""Read a tuning's folder into what a page shows."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plain_yaml import parse_yaml
from ..recipe import RecipeError
from ..tuning.reading import Found, read_tuning
from ..tuning.tuning import FIRST_SEED
from ..untrusted import read_text

__all__ = ["TuningData", "collect_tuning"]


@dataclass(frozen=True)
class TuningData:
    """A tuning's folder.

    Attributes:
        folder: its path.
        name: of the recipe.
        method: that is tuned.
        metric: of the scores, which are validation scores.
        seeds: that each trial trains on, in words.
        wanted: number of trials; those that are there where the folder does not tell.
        recipe: what was tuned.
        command: that tests the best setting; empty if there is no best one yet.
        found: what was found.
        notes: for the reader.
    """

    folder: str
    name: str
    method: str
    metric: str
    seeds: str
    wanted: int
    recipe: dict[str, Any]
    command: str
    found: Found
    notes: list[str]

    @property
    def finished(self) -> bool:
        """Whether all wanted trials have ended."""
        return self.found.result.trials >= self.wanted and not self.found.result.running


def collect_tuning(folder: Path) -> TuningData:
    """Read a tuning's folder.

    Raises:
        RecipeError: a file is damaged.
    """
    found, recipe = read_tuning(folder), _recipe(folder / "recipe.yaml")
    data = recipe.get("data")
    seeds = found.told.get("seeds")
    best = folder / "best.yaml"
    wanted = found.told.get("trials")
    return TuningData(
        folder=str(folder),
        name=str(recipe.get("name") or folder.name),
        method=str(found.told.get("method") or "method unknown"),
        metric=str((data.get("metric") if isinstance(data, dict) else None) or "accuracy"),
        seeds=_seeds(seeds) if isinstance(seeds, int) else "",
        wanted=wanted if isinstance(wanted, int) else found.result.trials,
        recipe=recipe,
        command=shlex.join(["bisam", "compare", str(best)]) if best.is_file() else "",
        found=found,
        notes=_notes(found, wanted if isinstance(wanted, int) else 0),
    )


def _recipe(path: Path) -> dict[str, Any]:
    try:
        found = parse_yaml(read_text(path), path.name)
    except FileNotFoundError:
        return {}
    except (OSError, RecipeError) as error:
        raise RecipeError(f"{path} cannot be read ({type(error).__name__}): repeat bisam tune") from None
    return found if isinstance(found, dict) else {}


def _seeds(number: int) -> str:
    return f"{FIRST_SEED}" if number == 1 else f"{FIRST_SEED} to {FIRST_SEED + number - 1}"


def _notes(found: Found, wanted: int) -> list[str]:
    notes, result = [], found.result
    if result.trials < wanted or result.running:
        running = f", {result.running} are running" if result.running else ""
        notes.append(f"{result.trials} of {max(wanted, result.trials)} trials have ended{running}.")
    if result.best is None:
        notes.append("No trial has run to its end, so there is no best one.")
    for name, end in result.borders.items():
        notes.append(f"The best {name} lies at the {end} end of its range: a wider range may contain a better one.")
    if result.failed:
        notes.append(f"{result.failed} trials could not be trained: the table has the reasons.")
    return notes
