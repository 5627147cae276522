"""What scripts share that compare methods after equal tuning: contestants, settings, and trainings in a folder."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bisam_lab.errors import RecipeError
from bisam_lab.parallel.engine import Engine
from bisam_lab.recipe import Recipe
from bisam_lab.run.asking import Asking, Clock
from bisam_lab.run.result import Run, RunResult
from bisam_lab.stack.together import together
from bisam_lab.study.cell import cell
from bisam_lab.study.folder import Study
from bisam_lab.study.pool import run_study

#: Runs that one process trains at a time.
TOGETHER = 10
#: How many times SAM's radii others take, by part, so that the best value lies inside of what is tried.
SCALES = {"asam": 4, "samon": 4, "momentumsam": 4, "aesam": 4, "asyncsam": 2, "looksam": 0.25, "wsam": 0.25}


@dataclass(frozen=True)
class Contestant:
    """A method, trained for ``epochs`` times the recipe's epochs.

    Attributes:
        like: the contestant whose tuned numbers it takes; None: it is tuned on its own.
    """

    method: str
    epochs: float = 1.0
    like: str | None = None

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        longer = "" if self.epochs == 1 else f", {self.epochs:g} x epochs"
        return self.method + longer + ("" if self.like is None else f", tuned as {self.like}")

    @property
    def plain(self) -> bool:
        """Whether it is the optimizer alone, which has no radius."""
        return self.method == "sgd"

    @property
    def scale(self) -> float:
        """How many times SAM's radii it tries."""
        return math.prod(SCALES.get(part, 1) for part in self.method.split("+"))


@dataclass(frozen=True)
class Setting:
    """Where contestants meet.

    Attributes:
        recipe: by name.
        different: what is different from it.
        contestants: who meets.
        tuning_seeds: runs of each trial.
        seeds: runs of the test.
        radius: SAM's, around which it is searched.
        same: the setting with the same trainings, whose folder serves here, too.
    """

    recipe: str
    different: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    tuning_seeds: int
    seeds: int
    radius: float
    same: str | None = None


def recipe_of(recipe: Recipe, factor: float, **given: Any) -> Recipe:
    """Return the recipe with ``factor`` times its epochs, and other fields as given."""
    train = recipe.train.model_copy(update={"epochs": round(factor * recipe.train.epochs)})
    return Recipe.model_validate({**recipe.model_dump(), "train": train.model_dump(), **given})


def trained(recipe: Recipe, folder: Path, data_dir: Path | None, jobs: int, name: str) -> Iterator[RunResult]:
    """Train a study's missing runs, and yield all its results, seed by seed.

    With one job they are trained in this process, runs of several variants together: a process and a trial for each
    variant would take longer than the small networks themselves.

    Raises:
        RecipeError: a run failed.
    """
    study = Study(folder, recipe, data_dir, print)
    done, total = len(study.results()), len(study.runs)
    for finished in _here(study) if jobs == 1 else _in_processes(study, jobs, name):
        done += finished
        print(f"{name}: {done} of {total}", flush=True)
    results = study.results()
    for run in sorted(results, key=lambda run: (run.variant, run.method, run.seed)):
        yield results[run]


def _in_processes(study: Study, jobs: int, name: str) -> Iterator[int]:
    with closing(run_study(study, Engine(jobs=jobs), stack="auto")) as events:
        for event in events:
            error = getattr(event, "error", None)
            if error is not None:
                raise RecipeError(f"{name}: {event.job} failed: {error}")
            if hasattr(event, "result"):
                yield 1


def _here(study: Study) -> Iterator[int]:
    done = study.results()
    pending = sorted(run for run in study.runs if run not in done)
    pending.sort(key=lambda run: (run.variant, run.method == "sgd", run.method))
    with study.at_work():
        for batch in range(0, len(pending), TOGETHER):
            group = pending[batch : batch + TOGETHER]
            together([partial(_cell, study, run, len(group)) for run in group])
            yield len(group)


def _cell(study: Study, run: Run, stack: int, clock: Clock) -> Asking[RunResult]:
    return cell(study.recipe_of(run), run, study.path(run), data_dir=study.data_dir, clock=clock, stack=stack)


def as_text(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as JSON, a contestant a line."""
    settings = []
    for name, setting in kept.items():
        about = json.dumps({key: value for key, value in setting.items() if key != "rows"})
        rows = ",\n  ".join(map(json.dumps, setting["rows"]))
        settings.append(f'{json.dumps(name)}: {about[:-1]}, "rows": [\n  {rows}\n ]}}')
    return "{\n " + ",\n ".join(settings) + "\n}\n"
