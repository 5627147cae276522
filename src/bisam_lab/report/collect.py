"""Read folders into plain data: all that a page shows of studies, tunings and runs, without how it looks."""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..budget import Budget
from ..datasets.registry import shift
from ..recipe import RecipeError
from ..run.result import RunResult
from ..statistics.by_variant import compare_variant
from ..statistics.cost import compared
from ..statistics.registered import Decided
from ..study.files import read_budget, read_results
from ..study.looks import first_seeds, read_look
from .block import Block, make_block
from .kinds import kind_of
from .one_run import RunData, read_run
from .reading import recipe_of
from .registration import registered, registered_margin, stopping_of

if TYPE_CHECKING:
    from .one_tuning import TuningData

__all__ = ["Environment", "ReportData", "RunsData", "StudyData", "collect"]


@dataclass(frozen=True)
class Environment:
    """Hardware and versions, and the number of runs that were trained with exactly these."""

    runs: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class StudyData:
    """A study's folder.

    Attributes:
        folder: its path.
        name: of the recipe.
        description: of the recipe.
        recipe: as it stands in the folder, whichever version of bisam wrote it.
        command: to run the study again.
        started: when the first run started.
        environments: hardware and versions of the runs.
        notes: for the reader, such as that runs are missing.
        blocks: one per variant.
        missing: number of runs that are not finished.
        hypotheses: stated before the first run, and what the runs say of them.
        stopping: the rule that was stated; empty without one.
    """

    folder: str
    name: str
    description: str
    recipe: dict[str, Any]
    command: str
    started: str
    environments: list[Environment]
    notes: list[str]
    blocks: list[Block]
    missing: int = 0
    hypotheses: list[Decided] = field(default_factory=list)
    stopping: str = ""


@dataclass(frozen=True)
class RunsData:
    """Runs of one recipe, each from a folder of its own.

    Attributes:
        name: of the recipe.
        metric: of the scores.
        runs: by method, then by seed.
        environments: hardware and versions.
        notes: for the reader.
    """

    name: str
    metric: str
    runs: list[RunData]
    environments: list[Environment]
    notes: list[str]


@dataclass(frozen=True)
class ReportData:
    """All that a page shows.

    Attributes:
        bisam: version.
        created: time.
        methods: of all studies and runs; their order is that of the colours.
        studies: one per folder.
        tunings: one per folder.
        runs: one per recipe.
        finished: whether there is nothing more to come.
        folders: that it was read from.
    """

    bisam: str
    created: str
    methods: list[str]
    studies: list[StudyData]
    tunings: "list[TuningData]"
    runs: list[RunsData]
    finished: bool
    folders: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; a history becomes a list per column."""
        values: dict[str, Any] = _json(asdict(self))
        return values


def _json(value: Any) -> Any:
    """Return a value for JSON. A number that is not finite becomes null, and a value of another kind its text."""
    if isinstance(value, dict):
        return {str(key): _json(_columns(item) if key == "history" else item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _columns(history: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [epoch[key] for epoch in history] for key in (history[0] if history else ())}


def collect(
    folders: Iterable[Path], baseline: str | None = None, test: str = "t", margin: float | None = None
) -> ReportData:
    """Read studies, tunings and runs; compare the methods of the studies.

    Args:
        folders: of any kind; one that is named twice is read once.
        baseline: method to compare with; by default the first one of each recipe.
        test: a key of ``TESTS``.
        margin: points that do not matter; by default each recipe's.

    Raises:
        RecipeError: a folder does not exist or is of no kind, a file is damaged, no study has the baseline, or the
            margin is not positive.
    """
    if margin is not None and not (type(margin) in (int, float) and 0 < margin < math.inf):
        raise RecipeError(f"margin={margin!r} must be positive and finite: the points that do not matter, such as 0.3")
    named = list({folder.resolve(): folder for folder in folders}.values())
    kinds = {folder: kind_of(folder) for folder in named}
    studies = [_study(folder, baseline, test, margin) for folder in named if kinds[folder] == "study"]
    runs = _runs([read_run(folder) for folder in named if kinds[folder] == "run"])
    tunings = _tunings([folder for folder in named if kinds[folder] == "tuning"])
    methods = [method for study in studies for block in study.blocks for method in block.methods]
    methods += [run.result.method for group in runs for run in group.runs]
    methods = list(dict.fromkeys(methods))
    if baseline is not None and baseline not in methods:
        raise RecipeError(f"--baseline {baseline} is not among the methods {', '.join(methods)}")
    unfinished = [study for study in studies if study.missing]
    return ReportData(
        bisam=version("bisam"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        methods=methods,
        studies=studies,
        tunings=tunings,
        runs=runs,
        finished=not unfinished
        and all(tuning.finished for tuning in tunings)
        and all(run.finished for group in runs for run in group.runs),
        folders=[str(folder.resolve()) for folder in named],
    )


def _tunings(folders: Sequence[Path]) -> "list[TuningData]":
    if not folders:
        return []
    from .one_tuning import collect_tuning  # here, because Optuna takes a second to import

    return [collect_tuning(folder) for folder in folders]


def _runs(found: Sequence[RunData]) -> list[RunsData]:
    """Group runs by recipe and metric."""
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in found:
        groups.setdefault((str(run.recipe.get("name") or "runs"), run.result.metric), []).append(run)
    return [
        RunsData(
            name=name,
            metric=metric,
            runs=sorted(group, key=lambda run: (run.result.method, run.result.seed)),
            environments=_environments(run.result for run in group),
            notes=_notes_of_runs(group),
        )
        for (name, metric), group in groups.items()
    ]


def _notes_of_runs(group: Sequence[RunData]) -> list[str]:
    notes = [
        f"{run.name}: {len(run.result.history)} of {run.epochs} epochs are trained."
        for run in group
        if not run.finished
    ]
    known = [(run.result.method, run.result.seed) for run in group]
    if len(set(known)) < len(known):
        notes.append("Some folders hold runs of the same method and seed: their curves are drawn as one.")
    return notes


def _study(folder: Path, baseline: str | None, test: str, margin: float | None) -> StudyData:
    recipe = recipe_of(folder)
    margin = registered_margin(recipe) if margin is None else margin
    results, damaged = read_results(folder)
    budget, look = read_budget(folder), read_look(folder)
    level = 0.95 if look is None else 1 - look.level
    if look is not None:
        results = first_seeds(results, look.seeds)
    methods = list(dict.fromkeys([*map(str, recipe["methods"]), *(result.method for result in results)]))
    variants = recipe["variants"] if isinstance(recipe.get("variants"), dict) else {}
    named = list(dict.fromkeys([*map(str, variants), *sorted(result.variant for result in results)])) or [""]
    against = baseline or methods[0]
    blocks = []
    for name in named:
        of = [result for method in methods for result in results if (result.variant, result.method) == (name, method)]
        runs = compared(of, name, budget)
        beside = [result for result in of if result not in runs and not result.equal_cost]
        settings = variants.get(name) if isinstance(variants.get(name), dict) else None
        blocks.append(
            make_block(
                compare_variant(name, of, against, test, None, budget, level, margin),
                *(runs, methods, test, settings, beside),
            )
        )
    return StudyData(
        folder=str(folder),
        name=str(recipe.get("name") or folder.name),
        description=str(recipe.get("description") or ""),
        recipe=recipe,
        command=_command(recipe, against, budget),
        started=min((str(run.environment["started"]) for run in results if "started" in run.environment), default=""),
        environments=_environments(results),
        notes=[
            *_notes(recipe, results, named, damaged, budget),
            *([] if look is None else [look.sentence]),
            *_shifts(recipe, variants),
        ],
        blocks=blocks,
        hypotheses=registered(recipe, results, budget, level),
        stopping=stopping_of(recipe),
        missing=max(0, _wanted(recipe, named, budget, len(results)) - len(results)),
    )


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


def _notes(
    recipe: dict[str, Any],
    results: Sequence[RunResult],
    variants: Sequence[str],
    damaged: Sequence[str],
    budget: Budget | None,
) -> list[str]:
    notes = []
    methods, finished = list(map(str, recipe["methods"])), len(results)
    wanted = _wanted(recipe, variants, budget, finished)
    unknown = [method for method in methods if budget and any(budget.missing(name, (method,)) for name in variants)]
    if finished == 0:
        notes.append("No run is finished yet.")
    elif finished < wanted:
        notes.append(f"{finished} of {wanted} runs are finished. The numbers are computed from these.")
    if budget and unknown:
        notes.append(
            f"Left out of the comparison at equal cost: {', '.join(unknown)}. `bisam compare` with --budget "
            f"{budget.unit} trains them."
        )
    if damaged:
        notes.append(f"Left out, because they cannot be read: {', '.join(damaged)}.")
    if old := sum(not result.recipe for result in results):
        notes.append(
            f"{old} of {finished} results were written before results named their recipe: that they are of this one is "
            "said by recipe.yaml alone."
        )
    return notes


def _shifts(recipe: dict[str, Any], variants: dict[str, Any]) -> list[str]:
    """Return how the test sets differ in kind from validation, of a recipe that may be of another version."""
    data = recipe.get("data") if isinstance(recipe.get("data"), dict) else {}
    own = data.get("name") if isinstance(data, dict) else None
    names = [inner.get("data.name", own) for inner in variants.values() if isinstance(inner, dict)] or [own]
    return [text for name in dict.fromkeys(map(str, names)) if (text := shift(name))]


def _wanted(recipe: dict[str, Any], variants: Sequence[str], budget: Budget | None, finished: int) -> int:
    """Return the number of runs of the whole study; those that are finished where the recipe does not tell."""
    seeds, methods = recipe.get("seeds"), list(map(str, recipe["methods"]))
    cells = [(name, method) for name in variants for method in methods]
    longer = [
        (name, method)
        for name, method in cells
        if budget and not budget.missing(name, (method,)) and budget.shares[name].differs(method)
    ]
    return (len(cells) + len(longer)) * seeds if isinstance(seeds, int) else finished


def _command(recipe: dict[str, Any], baseline: str, budget: Budget | None) -> str:
    words = ["bisam", "compare", "recipe.yaml", "--out", "again"]
    words += [] if budget is None else ["--budget", budget.unit]
    return shlex.join([*words, "--baseline", baseline] if baseline != str(recipe["methods"][0]) else words)
