"""Read the folder of one run: its result, or, of a run that is not finished, its learning curve so far."""

import csv
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import one_line
from ..plain_yaml import parse_yaml
from ..recipe import RecipeError
from ..run.result import Epoch, Run, RunResult
from ..untrusted import parse_json, read_text

__all__ = ["RunData", "read_run"]

#: The recipe of one run, in its folder.
RECIPE = "run.yaml"
#: How far above a run's folder its study's recipe may lie: runs/VARIANT/METHOD/seed-N.
_ABOVE = 5


@dataclass(frozen=True)
class RunData:
    """A run's folder.

    Attributes:
        folder: its path.
        finished: whether it has a result.
        result: of the run; of one that is not finished, its history alone.
        recipe: of the run, or of the study that it belongs to; empty where the folder tells of none.
    """

    folder: str
    finished: bool
    result: RunResult
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """What the page calls it."""
        return " ".join([*([self.result.variant] if self.result.variant else []), self.result.method, self.seed])

    @property
    def seed(self) -> str:
        """Its seed, in words."""
        return f"seed {self.result.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of the whole training; those that are there where nobody knows."""
        train = self.recipe.get("train")
        planned = train.get("epochs") if isinstance(train, dict) else None
        return planned if isinstance(planned, int) else len(self.result.history)


def read_run(folder: Path) -> RunData:
    """Read a run's folder.

    Raises:
        RecipeError: its result or its learning curve is damaged, or nobody has begun it.
    """
    recipe = _recipe(folder)
    path = folder / "result.json"
    try:
        result = RunResult.from_dict(parse_json(read_text(path)))
    except FileNotFoundError:
        return RunData(str(folder), False, _unfinished(folder, recipe), recipe)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = one_line(f"{type(error).__name__}: {error}", 60)
        raise RecipeError(f"{path} cannot be read ({said}): remove it and repeat bisam train") from None
    return RunData(str(folder), True, result, recipe)


def _recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe of a run, or of its study, without validation."""
    here = folder.resolve()
    studies = [place / "recipe.yaml" for place in here.parents[:_ABOVE] if (place / "study.json").is_file()]
    for path in (here / RECIPE, *studies):
        try:
            found = parse_yaml(read_text(path), path.name)
        except (OSError, RecipeError):
            continue  # the page says less, and the curves are there
        if isinstance(found, dict):
            return found
    return {}


def _unfinished(folder: Path, recipe: dict[str, Any]) -> RunResult:
    run = _run(folder, recipe)
    data = recipe.get("data")
    metric = data.get("metric") if isinstance(data, dict) else None
    history = _history(folder / "csv" / "metrics.csv")
    best = max(history, key=lambda epoch: epoch.validation_score, default=None)
    return RunResult(
        method=run.method,
        seed=run.seed,
        status="ok",
        test_score=math.nan,
        validation_score=best.validation_score if best else math.nan,
        selected_epoch=best.epoch if best else 0,
        steps_per_second=math.nan,
        seconds=math.nan,
        metric=str(metric or "accuracy"),
        history=history,
    )


def _run(folder: Path, recipe: dict[str, Any]) -> Run:
    """Return which run it is: by its recipe, else by the names of the folders."""
    methods, seed = recipe.get("methods"), recipe.get("first_seed")
    if (folder / RECIPE).is_file() and isinstance(methods, list) and methods and isinstance(seed, int):
        return Run("", seed, str(methods[0]))
    name, digits = folder.resolve().parent.name, folder.resolve().name.removeprefix("seed-")
    return Run("", int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else 0, name)


def _history(path: Path) -> list[Epoch]:
    """Read the learning curve that a run logs while it trains."""
    known = {field.name for field in fields(Epoch)} - {"epoch", "loss_at", "steps"}
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
        return [
            Epoch(
                epoch=int(row["step"]),
                **{key: float(value) for key, value in row.items() if key in known and value},  # type: ignore[arg-type]
            )
            for row in rows
            if row.get("train_loss")
        ]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is damaged ({type(error).__name__}): repeat bisam train") from None
