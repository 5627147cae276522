"""One trial: train the recipe with a setting on each seed, and score it on validation. The test set is not read."""

import contextlib
import math
from collections.abc import Callable, Generator
from typing import TypeAlias

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from ..errors import one_line
from ..recipe import Recipe
from ..registry.metrics import METRICS
from ..run.observer import Observer, Stopped
from ..run.result import Epoch
from .claim import Claim, TakenOver
from .result import TrialResult
from .seed import train_seed, train_seed_in_crew
from .tuning import FIRST_SEED

__all__ = ["EpochReport", "TrialError", "run_trial"]

#: Called after each epoch with the epochs done, the epochs in all, and the score so far.
EpochReport: TypeAlias = Callable[[int, int, float], None]


class TrialError(Exception):
    """A setting could not be trained."""


def run_trial(claim: Claim, observer: Observer, report: EpochReport) -> TrialResult:
    """Train the trial from its last checkpoint, and record how it ended.

    Args:
        claim: the trial, which this process holds.
        observer: can stop the trial, and receives messages.
        report: is called after each epoch.

    Returns:
        The trial with its score: the mean over its seeds.

    Raises:
        Stopped: the observer stopped the trial; another process will continue it.
        TrialError: it could not be trained; it is recorded as failed.
        TakenOver: another process has taken it, because this one had given no sign of life.
        StorageInternalError: the database does not answer.
    """
    objective = _Objective(claim, observer, report)
    try:
        score, pruned = objective.score(), False
    except Stopped:
        claim.put_back()
        raise
    except optuna.TrialPruned:
        score, pruned = objective.reported, True
    except UpdateFinishedTrialError:
        claim.leave()
        raise TakenOver from None
    except StorageInternalError:
        claim.leave()
        raise
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}")
        claim.end(TrialState.FAIL, error=text)
        raise TrialError(text) from error
    claim.end(TrialState.PRUNED if pruned else TrialState.COMPLETE, None if pruned else score)
    return TrialResult(claim.trial.number, score, claim.settings, pruned, claim.is_default)


class _Objective:
    """The score of a claimed trial. It is reported after each epoch, so that Optuna can prune the trial."""

    def __init__(self, claim: Claim, observer: Observer, report: EpochReport) -> None:
        self.claim, self.observer, self.report = claim, observer, report
        self.tuning, self.reported = claim.tuning, 0.0
        self.recipe: Recipe = self.tuning.space.apply(self.tuning.recipe, claim.settings)

    def score(self) -> float:
        """Train on every seed, and return the mean of the scores.

        Raises:
            TrialPruned: the trial is not promising enough to continue.
        """
        scores: list[float] = []
        for seed in range(FIRST_SEED, FIRST_SEED + self.tuning.seeds):
            scores.append(self._train(seed, scores))
        return sum(scores) / len(scores)

    def _train(self, seed: int, before: list[float]) -> float:
        history: list[Epoch] = []
        with contextlib.closing(self._epochs(seed)) as epochs:
            for epoch in epochs:
                if epoch.epoch > len(history):  # a crew that has lost a process tells some again
                    history.append(epoch)
                    self._report(history, before)
        if len(history) < self.recipe.train.epochs and not self._diverged(history):
            raise Stopped  # in a crew, whose processes have saved
        return self._best(history)

    def _epochs(self, seed: int) -> Generator[Epoch, None, None]:
        """Train on a seed, here or by several processes together, and yield each epoch."""
        tuning, folder = self.tuning, self.claim.folder / f"seed-{seed}"
        given = (self.recipe, tuning.method, seed, tuning.data_dir, folder, tuning.every, tuning.seeds > 1)
        if self.recipe.engine.processes == 1:
            return train_seed(*given, observer=self.observer)
        from ..parallel.crew import crew

        name = f"trial {self.claim.trial.number}"
        return crew(name, self.recipe.engine.processes, train_seed_in_crew, name, *given)

    def _report(self, history: list[Epoch], before: list[float]) -> None:
        trial, epochs = self.claim.trial, self.recipe.train.epochs
        scores = [*before, self._best(history)]
        self.reported = sum(scores) / len(scores)
        step, last = len(before) * epochs + len(history), self.tuning.seeds * epochs
        trial.report(self.reported, step)
        self.report(step, last, self.reported)
        if not self.claim.is_default and step < last and trial.should_prune():
            raise optuna.TrialPruned

    def _best(self, history: list[Epoch]) -> float:
        """Return the score of the epoch that would be tested if the run ended now."""
        if self._diverged(history):
            return METRICS[self.recipe.data.metric].lowest
        scores = [epoch.validation_score for epoch in history]
        return scores[-1] if self.recipe.train.select == "last" else max(scores)

    @staticmethod
    def _diverged(history: list[Epoch]) -> bool:
        return not math.isfinite(history[-1].train_loss) if history else False
