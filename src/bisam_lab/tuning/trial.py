"""One trial: the recipe with a setting, trained on each seed, scored on validation; the test set is not touched."""

from collections.abc import Callable
from typing import TypeAlias

import optuna
from optuna.trial import TrialState

from ..recipe import Recipe
from ..registry.metrics import METRICS
from ..run.checkpoint import CheckpointError, Checkpoints
from ..run.observer import Observer, Stopped
from ..run.result import Epoch
from ..run.resumable import Training
from .claim import Claim
from .study import FIRST_SEED

__all__ = ["Tell", "TrialError", "run", "worst"]

#: Is told of each epoch: how many are done, of how many, and the score so far.
Tell: TypeAlias = Callable[[int, int, float], None]


class TrialError(Exception):
    """A setting that could not be trained."""


def worst(metric: str) -> float:
    """Return the lowest value of a metric, which is the score of a run that diverged."""
    return METRICS[metric].lowest


def run(claim: Claim, observer: Observer, tell: Tell) -> float:
    """Train the trial from where it stopped, record how it ended, and return its score, the mean over its seeds.

    Raises:
        Stopped: the observer asked for it; another process goes on with the trial.
        TrialError: it could not be trained; it is recorded as failed.
    """
    objective = _Objective(claim, observer, tell)
    try:
        score = objective.score()
    except Stopped:
        claim.put_back()
        raise
    except optuna.TrialPruned:
        claim.end(TrialState.PRUNED)
        return objective.reported
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        claim.end(TrialState.FAIL, error=text)
        raise TrialError(f"trial {claim.trial.number}: {text}") from error
    claim.end(TrialState.COMPLETE, score)
    return score


class _Objective:
    """The score of a claimed trial, reported epoch by epoch for pruning."""

    def __init__(self, claim: Claim, observer: Observer, tell: Tell) -> None:
        self.claim, self.observer, self.tell = claim, observer, tell
        self.tuning, self.reported = claim.tuning, 0.0
        self.recipe: Recipe = self.tuning.space.apply(self.tuning.recipe, claim.settings)

    def score(self) -> float:
        """Train on every seed.

        Raises:
            TrialPruned: it is not worth going on.
        """
        scores: list[float] = []
        for seed in range(FIRST_SEED, FIRST_SEED + self.tuning.seeds):
            scores.append(self._train(seed, scores))
        return sum(scores) / len(scores)

    def _train(self, seed: int, before: list[float]) -> float:
        training = Training(self.recipe, self.tuning.method, seed, self.tuning.data_dir)
        checkpoints = Checkpoints(self.claim.folder / f"seed-{seed}", self.observer.note)
        self._restore(training, checkpoints)
        for done in range(1, len(training.history) + 1):
            self._report(training.history[:done], training, before)
        while not training.ended:
            self.observer.epoch(training.epoch(self.observer, checkpoints, self.tuning.every))
            self._report(training.history, training, before)
        if self.tuning.seeds > 1:
            training.save(checkpoints)
        return self._best(training.history, training)

    def _restore(self, training: Training, checkpoints: Checkpoints) -> None:
        state = checkpoints.load()
        if state is None:
            return
        try:
            training.restore(state)
        except CheckpointError as error:  # of another version, which wrote its recipe otherwise
            self.observer.note(f"{error}; it starts anew")
            checkpoints.remove()

    def _report(self, history: list[Epoch], training: Training, before: list[float]) -> None:
        trial, epochs = self.claim.trial, self.recipe.train.epochs
        scores = [*before, self._best(history, training)]
        self.reported = sum(scores) / len(scores)
        step = len(before) * epochs + len(history)
        trial.report(self.reported, step)
        self.tell(step, self.tuning.seeds * epochs, self.reported)
        if "default" not in trial.user_attrs and step < self.tuning.seeds * epochs and trial.should_prune():
            raise optuna.TrialPruned

    def _best(self, history: list[Epoch], training: Training) -> float:
        """Return the score of the epoch that would be tested if the run ended here."""
        if training.diverged and len(history) == len(training.history):
            return worst(self.recipe.data.metric)
        scores = [epoch.validation_score for epoch in history]
        return scores[-1] if self.recipe.train.select == "last" else max(scores)
