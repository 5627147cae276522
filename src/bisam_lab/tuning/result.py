"""The result of a tuning: the best setting and its recipe, a table of all trials, and parameter importances."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..recipe import changed
from ..registry.optimizers import PLAIN
from ..study.files import write_text
from .space import Space
from .tuning import FIRST_SEED, Tuning, ended

__all__ = [
    "ENOUGH",
    "TrialResult",
    "TuningResult",
    "copy_of",
    "read_trials",
    "scored",
    "shown_range",
    "summary",
    "write_best",
    "write_trials",
]

#: With fewer trials importances would be noise.
ENOUGH = 10
_SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialResult:
    """A trial that has a score.

    Attributes:
        trial: its number.
        score: on validation, as a fraction; of a pruned trial the score when it was stopped.
        settings: the numbers it was trained with, by parameter.
        pruned: whether it was stopped early.
        default: whether it is the recipe's own setting.
    """

    trial: int
    score: float
    settings: dict[str, float]
    pruned: bool = False
    default: bool = False


@dataclass(frozen=True)
class TuningResult:
    """What a tuning found.

    Attributes:
        best: the best trial that ran to its end; None if there is none yet. Among equal scores the recipe's own setting
            wins, then the first trial.
        default: the trial of the recipe's own setting; None if it lies outside a range, or has not run yet.
        scored: all trials that have a score, pruned ones included, in order.
        failed: number of trials that could not be trained.
        running: number of trials that other processes are running.
        importances: fraction of the scores' variance by parameter (fANOVA over ``scored``); empty if there are fewer
            than ten trials, only one parameter, or only equal scores.
        borders: parameters whose best value lies at an end of their range, with that end: "lower" or "upper".
    """

    best: TrialResult | None
    default: TrialResult | None
    scored: list[TrialResult]
    failed: int
    running: int
    importances: dict[str, float]
    borders: dict[str, str]

    @property
    def trials(self) -> int:
        """Number of trials that have ended."""
        return len(self.scored) + self.failed

    @property
    def pruned(self) -> int:
        """Number of trials that were stopped early."""
        return sum(trial.pruned for trial in self.scored)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        shown = {
            key: None
            if trial is None
            else {k: v for k, v in asdict(trial).items() if k in ("trial", "score", "settings")}
            for key, trial in (("best", self.best), ("default", self.default))
        }
        counts = {"trials": self.trials, "pruned": self.pruned, "failed": self.failed}
        return {**shown, **counts, "importances": self.importances, "borders": self.borders}


def read_trials(tuning: Tuning, study: optuna.Study) -> TuningResult:
    """Read from the storage what was found so far.

    Raises:
        RecipeError: the storage holds trials of another tuning.
    """
    with tuning.answering:
        tuning.check(study)
        trials = study.get_trials(deepcopy=False)
    return summary(tuning.space, trials)


def summary(space: Space, trials: Sequence[FrozenTrial]) -> TuningResult:
    """Return what these trials found in a search space."""
    frozen = scored(trials)
    results = [_result(space, trial) for trial in frozen]
    complete = [trial for trial in results if not trial.pruned]
    best = max(complete, key=lambda trial: (trial.score, trial.default, -trial.trial), default=None)
    borders = {d.name: d.border(best.settings[d.name]) for d in space} if best is not None else {}
    return TuningResult(
        best=best,
        default=next((trial for trial in complete if trial.default), None),
        scored=results,
        failed=sum(ended(trial) for trial in trials) - len(frozen),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        importances=_importances(frozen),
        borders={name: end for name, end in borders.items() if end is not None},
    )


def scored(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those trials that have a score."""
    return [trial for trial in trials if trial.state in _SCORED and trial.value is not None]


def _result(space: Space, trial: FrozenTrial) -> TrialResult:
    assert trial.value is not None
    pruned, default = trial.state == TrialState.PRUNED, "default" in trial.user_attrs
    return TrialResult(trial.number, trial.value, space.settings(trial.params), pruned, default)


def _importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return each parameter's importance.

    A pruned trial counts with its last score. Without the pruned trials the bad settings would be missing.
    """
    if len(trials) < ENOUGH or len({trial.value for trial in trials}) == 1 or len(trials[0].params) == 1:
        return {}
    return get_param_importances(copy_of(trials), evaluator=FanovaImportanceEvaluator(seed=0))


def shown_range(scores: Sequence[float]) -> tuple[float, float]:
    """Return a range of scores that shows the better half well."""
    high, middle = max(scores), statistics.median(scores)
    low = max(min(scores), high - 3 * max(high - middle, 0.01))
    margin = 0.06 * max(high - low, 0.01)
    return low - margin, high + margin


def copy_of(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study in memory of trials that have a score. In it the pruned ones count as complete."""
    study = optuna.create_study(direction="maximize")
    ranges: dict[str, BaseDistribution] = trials[0].distributions
    study.add_trials([create_trial(params=t.params, distributions=ranges, value=t.value) for t in trials])
    return study


def write_best(tuning: Tuning, found: TuningResult, command: str) -> None:
    """Write best.yaml: the recipe with the best setting, and with the plain optimizer to compare it with.

    Args:
        tuning: what was searched.
        found: what was found; nothing is written if there is no best trial yet.
        command: the command line, for the head of the file.
    """
    if found.best is None:
        return
    recipe = tuning.space.apply(tuning.recipe, found.best.settings)
    plain = next((name for name in recipe.methods if name in PLAIN), recipe.train.plain_method)
    settings: dict[tuple[str, ...], Any] = {("hypotheses",): [], ("stopping",): None}
    settings |= {("methods",): list(dict.fromkeys([plain, tuning.method])), ("name",): f"{recipe.name}-tuned"}
    recipe = changed(recipe, settings)
    seeds = f"{FIRST_SEED}" if tuning.seeds == 1 else f"{FIRST_SEED}-{FIRST_SEED + tuning.seeds - 1}"
    score = f"validation {recipe.data.metric} {found.best.score:.4f}, seed {seeds}"
    head = (
        f"# Trial {found.best.trial}, the best of {found.trials}: {score}.\n"
        f"# {command}\n"
        "# The best score of many is too optimistic. To test the setting on other seeds: bisam compare THIS_FILE\n"
    )
    write_text(tuning.folder / "best.yaml", head + recipe.to_yaml())


def write_trials(tuning: Tuning, study: optuna.Study) -> None:
    """Write trials.csv: every trial, including those that failed or were started again."""
    table = io.StringIO(newline="")
    names = [dimension.name for dimension in tuning.space]
    writer = csv.DictWriter(table, ["trial", "state", "score", "epochs", "seconds", "default", *names, "error"])
    writer.writeheader()
    with tuning.answering:
        trials = study.get_trials(deepcopy=False)
    for trial in trials:
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "score": trial.value,
            "epochs": trial.last_step,
            "seconds": trial.duration and round(trial.duration.total_seconds(), 1),
            "default": int("default" in trial.user_attrs),
            "error": trial.user_attrs.get("error"),
        }
        if trial.params.keys() >= set(names):
            row |= tuning.space.settings(trial.params)
        writer.writerow(row)
    write_text(tuning.folder / "trials.csv", table.getvalue())
