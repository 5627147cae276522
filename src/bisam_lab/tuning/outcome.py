"""What came out of a tuning: the best setting, its recipe, every trial in a table, and what mattered."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..recipe import changed
from ..registry.optimizers import PLAIN
from ..study.files import write_text
from .study import FIRST_SEED, Tuning, ended

__all__ = ["ENOUGH", "Outcome", "Tried", "outcome", "write_best", "write_trials"]

#: Trials below which importances would be noise.
ENOUGH = 10
_STATES = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Tried:
    """A trial that ran: ``score`` is on validation, of a pruned one when it was stopped."""

    trial: int
    score: float
    settings: dict[str, float]
    pruned: bool = False
    default: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a tuning found.

    Attributes:
        best: of those that ran to their end; None before there is one. Of equal ones the recipe's own, then the first.
        default: the recipe's own setting; None where a range leaves it out, or it has not run yet.
        tried: all that ran, pruned ones too, in order.
        failed: trials that could not be trained.
        running: trials that other processes are at.
        importances: share of the scores' variance by parameter (fANOVA over all of ``tried``); empty when there are
            fewer than ten, only one parameter, or nothing but equal scores.
        borders: parameters whose best value lies at an end of their range, and which.
    """

    best: Tried | None
    default: Tried | None
    tried: list[Tried]
    failed: int
    running: int
    importances: dict[str, float]
    borders: dict[str, str]

    @property
    def trials(self) -> int:
        """How many have ended."""
        return len(self.tried) + self.failed

    @property
    def pruned(self) -> int:
        """How many were stopped early."""
        return sum(trial.pruned for trial in self.tried)

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


def outcome(tuning: Tuning, study: Study) -> Outcome:
    """Read what has been found so far."""
    trials = study.get_trials(deepcopy=False)
    ran = [trial for trial in trials if trial.state in _STATES and trial.value is not None]
    tried = [_tried(tuning, trial) for trial in ran]
    whole = [trial for trial in tried if not trial.pruned]
    best = max(whole, key=lambda trial: (trial.score, trial.default, -trial.trial), default=None)
    borders = {d.name: d.border(best.settings[d.name]) for d in tuning.space} if best is not None else {}
    return Outcome(
        best=best,
        default=next((trial for trial in whole if trial.default), None),
        tried=tried,
        failed=sum(ended(trial) for trial in trials) - len(ran),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        importances=_importances(ran),
        borders={name: end for name, end in borders.items() if end is not None},
    )


def _tried(tuning: Tuning, trial: FrozenTrial) -> Tried:
    assert trial.value is not None
    pruned, default = trial.state == TrialState.PRUNED, "default" in trial.user_attrs
    return Tried(trial.number, trial.value, tuning.space.settings(trial.params), pruned, default)


def _importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return each parameter's share; a pruned trial counts with its last score, or what is awful would not count."""
    if len(trials) < ENOUGH or len({trial.value for trial in trials}) == 1 or len(trials[0].params) == 1:
        return {}
    copy = optuna.create_study(direction="maximize")
    ranges: dict[str, BaseDistribution] = trials[0].distributions
    copy.add_trials([create_trial(params=t.params, distributions=ranges, value=t.value) for t in trials])
    return get_param_importances(copy, evaluator=FanovaImportanceEvaluator(seed=0))


def write_best(tuning: Tuning, found: Outcome, command: str) -> None:
    """Write best.yaml: the recipe with the best setting, ready to be compared with the plain optimizer.

    Args:
        tuning: what was searched.
        found: what was found.
        command: that was typed, for the file's head.
    """
    if found.best is None:
        return
    recipe = tuning.space.apply(tuning.recipe, found.best.settings)
    plain = next((name for name in recipe.methods if name in PLAIN), recipe.train.plain_method)
    recipe = changed(
        recipe, {("methods",): list(dict.fromkeys([plain, tuning.method])), ("name",): f"{recipe.name}-tuned"}
    )
    seeds = f"{FIRST_SEED}" if tuning.seeds == 1 else f"{FIRST_SEED}-{FIRST_SEED + tuning.seeds - 1}"
    score = f"validation {recipe.data.metric} {found.best.score:.4f}, seed {seeds}"
    head = (
        f"# Trial {found.best.trial}, the best of {found.trials}: {score}.\n"
        f"# {command}\n"
        "# The best score of many is too high; on other seeds: bisam compare THIS_FILE\n"
    )
    write_text(tuning.folder / "best.yaml", head + recipe.to_yaml())


def write_trials(tuning: Tuning, study: Study) -> None:
    """Write trials.csv: every trial, those that failed or were started again too."""
    table = io.StringIO(newline="")
    names = [dimension.name for dimension in tuning.space]
    writer = csv.DictWriter(table, ["trial", "state", "score", "epochs", "seconds", "default", *names, "error"])
    writer.writeheader()
    for trial in study.get_trials(deepcopy=False):
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
