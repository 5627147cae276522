"""From folders to plain data: everything that the page shows, and nothing of how it shows it."""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..recipe import RecipeError
from ..run.result import RunResult
from ..statistics import TESTS, Comparison
from ..statistics.by_variant import compare_variant
from ..study.files import read_results
from .reading import recipe_of

__all__ = ["Block", "Curve", "Difference", "Environment", "Report", "Study", "collect", "plain"]


@dataclass(frozen=True)
class Curve:
    """A method's learning curve: mean and sample standard deviation over the seeds that reached the epoch."""

    method: str
    epoch: list[int]
    validation_score: list[float]
    validation_score_std: list[float]
    train_loss: list[float]
    train_loss_std: list[float]


@dataclass(frozen=True)
class Difference:
    """Test score of a method minus that of the baseline at one seed, in points."""

    method: str
    seed: int
    difference: float


@dataclass(frozen=True)
class Block:
    """What is compared with each other: the runs of one variant of a study, or of a study without variants."""

    variant: str
    settings: dict[str, Any]
    metric: str
    baseline: str
    interval: str
    methods: list[str]
    verdict: str
    comparison: list[Comparison]
    differences: list[Difference]
    curves: list[Curve]
    runs: list[RunResult]


@dataclass(frozen=True)
class Environment:
    """Hardware and versions, and how many runs saw exactly these."""

    runs: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A folder: its recipe, its blocks, and what the reader should know about it."""

    folder: str
    name: str
    description: str
    recipe: dict[str, Any]
    command: str
    started: str
    environments: list[Environment]
    notes: list[str]
    blocks: list[Block]


@dataclass(frozen=True)
class Report:
    """All studies of a page; ``methods`` fixes the order of colours."""

    bisam: str
    created: str
    methods: list[str]
    studies: list[Study]


def collect(folders: Iterable[Path], baseline: str | None = None, test: str = "t") -> Report:
    """Read studies and compare their methods.

    Args:
        folders: of studies; one that is named twice is read once.
        baseline: method to compare with; the first of each recipe by default.
        test: a key of ``TESTS``.

    Raises:
        RecipeError: a folder that is missing or no study's; a baseline that no study has.
    """
    studies = [_study(folder, baseline, test) for folder in {folder.resolve(): folder for folder in folders}.values()]
    methods = list(dict.fromkeys(method for study in studies for block in study.blocks for method in block.methods))
    if baseline is not None and baseline not in methods:
        raise RecipeError(f"--baseline {baseline} is not among the methods {', '.join(methods)}")
    return Report(
        bisam=version("bisam"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        methods=methods,
        studies=studies,
    )


def plain(value: Any) -> Any:
    """Return a report as values for JSON, which has no NaN and no infinity; histories become columns."""
    if isinstance(value, Report):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(_columns(item) if key == "history" else item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _study(folder: Path, baseline: str | None, test: str) -> Study:
    recipe = recipe_of(folder)
    results, damaged = read_results(folder)
    methods = list(dict.fromkeys([*map(str, recipe["methods"]), *(result.method for result in results)]))
    variants = recipe["variants"] if isinstance(recipe.get("variants"), dict) else {}
    named = list(dict.fromkeys([*map(str, variants), *sorted(result.variant for result in results)])) or [""]
    against = baseline or methods[0]
    blocks = []
    for name in named:
        runs = [result for result in results if result.variant == name]
        settings = variants.get(name)
        blocks.append(_block(name, settings if isinstance(settings, dict) else {}, runs, methods, against, test))
    return Study(
        folder=str(folder),
        name=str(recipe.get("name") or folder.name),
        description=str(recipe.get("description") or ""),
        recipe=recipe,
        command=_command(recipe, against),
        started=min((str(run.environment["started"]) for run in results if "started" in run.environment), default=""),
        environments=_environments(results),
        notes=_notes(recipe, len(results), len(named), damaged),
        blocks=blocks,
    )


def _block(
    variant: str, settings: dict[str, Any], runs: Sequence[RunResult], methods: Sequence[str], baseline: str, test: str
) -> Block:
    place = {method: i for i, method in enumerate(methods)}
    ordered = sorted(runs, key=lambda run: (place[run.method], run.seed))
    present = list(dict.fromkeys(run.method for run in ordered))
    outcome = compare_variant(variant, ordered, baseline, test)
    base = {run.seed: run.test_score for run in ordered if run.method == baseline}
    return Block(
        variant=variant,
        settings=settings,
        metric=ordered[0].metric if ordered else "accuracy",
        baseline=baseline,
        interval=TESTS[test].interval(),
        methods=present,
        verdict=outcome.verdict,
        comparison=outcome.rows,
        differences=[
            Difference(run.method, run.seed, 100 * (run.test_score - base[run.seed]))
            for run in ordered
            if run.method != baseline and run.seed in base
        ],
        curves=[_curve(method, [run for run in ordered if run.method == method]) for method in present],
        runs=ordered,
    )


def _curve(method: str, runs: Sequence[RunResult]) -> Curve:
    epochs = sorted({epoch.epoch for run in runs for epoch in run.history})
    means: dict[str, tuple[list[float], list[float]]] = {}
    for quantity in ("validation_score", "train_loss"):
        seen: dict[int, list[float]] = {epoch: [] for epoch in epochs}
        for run in runs:
            for epoch in run.history:
                value = getattr(epoch, quantity)
                if value is not None and math.isfinite(value):  # a diverged run ends in NaN
                    seen[epoch.epoch].append(value)
        means[quantity] = (
            [float(np.mean(values)) if values else math.nan for values in seen.values()],
            [float(np.std(values, ddof=1)) if len(values) > 1 else math.nan for values in seen.values()],
        )
    return Curve(method, epochs, *means["validation_score"], *means["train_loss"])


def _environments(results: Iterable[RunResult]) -> list[Environment]:
    counted: list[tuple[dict[str, Any], int]] = []
    for result in results:
        fields = {key: value for key, value in result.environment.items() if key != "started"}
        for i, (known, runs) in enumerate(counted):
            if known == fields:
                counted[i] = (known, runs + 1)
                break
        else:
            counted.append((fields, 1))
    return [Environment(runs, fields) for fields, runs in counted if fields]


def _notes(recipe: dict[str, Any], finished: int, variants: int, damaged: Sequence[str]) -> list[str]:
    notes = []
    seeds = recipe.get("seeds")
    wanted = len(recipe["methods"]) * seeds * variants if isinstance(seeds, int) else finished
    if finished == 0:
        notes.append("No run is finished yet.")
    elif finished < wanted:
        notes.append(f"{finished} of {wanted} runs are finished; the numbers are over these.")
    if damaged:
        notes.append(f"Left out, for they cannot be read: {', '.join(damaged)}.")
    return notes


def _command(recipe: dict[str, Any], baseline: str) -> str:
    words = ["bisam", "compare", "recipe.yaml", "--out", "again"]
    return shlex.join([*words, "--baseline", baseline] if baseline != str(recipe["methods"][0]) else words)


def _columns(history: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [epoch[key] for epoch in history] for key in (history[0] if history else ())}
