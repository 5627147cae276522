"""Assign each trial to one process, and to another process when the first one has died."""

import re
import shutil
import time
import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from .retry import folder_name, queue_again
from .signs import Heartbeat, KernelLock, is_locked
from .tuning import Tuning, ended

__all__ = ["Claim", "TakenOver", "claim", "recover"]


class TakenOver(Exception):  # noqa: N818 not an error
    """This process gave no sign of life for so long that another one has taken its trial."""


class Claim:
    """A trial that this process runs until it calls :meth:`end`, :meth:`put_back` or :meth:`leave`."""

    def __init__(self, tuning: Tuning, study: optuna.Study, trial: Trial) -> None:
        self.tuning, self.study, self.trial = tuning, study, trial
        self._sign = (
            KernelLock(tuning.folder, trial.number)
            if tuning.storage is None
            else Heartbeat(study._storage, trial._trial_id)
        )

    @property
    def folder(self) -> Path:
        """Folder of its checkpoints. A trial that continues the work of another one uses the other's folder."""
        name = str(self.trial.user_attrs.get("folder", ""))
        own = folder_name(self.trial.number)  # a name that leads elsewhere would be deleted there
        return self.tuning.folder / "trials" / (name if re.fullmatch(r"[0-9]{4,9}", name) else own)

    @property
    def settings(self) -> dict[str, float]:
        """The numbers to train with."""
        return self.tuning.space.settings(self.trial.params)

    @property
    def is_default(self) -> bool:
        """Whether it is the recipe's own setting."""
        return "default" in self.trial.user_attrs

    def begin(self) -> None:
        """Give the trial its marks, and a value for each parameter."""
        self.trial.set_user_attr("recipe", self.tuning.digest)
        if self.tuning.storage is not None:
            self.trial.set_user_attr("beats", True)
        for dimension in self.tuning.space:
            dimension.suggest(self.trial)

    def end(self, state: TrialState, score: float | None = None, error: str | None = None) -> None:
        """Record how the trial ended, and delete its checkpoints.

        Raises:
            TakenOver: another process took this one for dead, and runs the trial from these checkpoints.
        """
        try:
            if error is not None:
                self.trial.set_user_attr("error", error)
            self.study.tell(self.trial.number, score, state)
        except (UpdateFinishedTrialError, ValueError):
            raise TakenOver from None
        finally:
            self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)

    def put_back(self) -> None:
        """Let another process continue the trial."""
        with self.tuning.turn(self.study):
            self.leave()
            _again(self.study, self.study.trials[self.trial.number], deaths=0)

    def leave(self) -> None:
        """Give no more signs of life."""
        self._sign.release()


def claim(tuning: Tuning, study: optuna.Study) -> Claim | None:
    """Take the next trial, with a value for each parameter; None if enough trials have ended or are running.

    Raises:
        RecipeError: the study is another tuning's, which was begun at the same time.
    """
    with tuning.turn(study):
        tuning.check(study)
        recover(tuning, study)
        trials = study.get_trials(deepcopy=False)
        taken = sum(ended(trial) or trial.state == TrialState.RUNNING for trial in trials)
        if taken >= tuning.trials:
            return None
        # A seed per trial: processes differ, and a tuning that was interrupted draws what an uninterrupted one draws.
        study.sampler = TPESampler(seed=taken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "heartbeat is supposed to be used with Study.optimize"
            trial = study.ask()
        claimed = Claim(tuning, study, trial)
        try:
            claimed.begin()
        except BaseException:
            claimed.leave()
            raise
        return claimed


def recover(tuning: Tuning, study: optuna.Study) -> None:
    """Queue the trials again whose processes have died. The caller holds the turn."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _never_beat(tuning, trial) if tuning.storage is not None else not is_locked(tuning.folder, trial.number):
            _again(study, trial, deaths=1)
    if tuning.storage is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)  # calls queue_again


def _never_beat(tuning: Tuning, trial: FrozenTrial) -> bool:
    """Whether its process died before its first sign of life; Optuna would let such a trial run for ever."""
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return "beats" not in trial.user_attrs and time.time() - started > tuning.silent


def _again(study: optuna.Study, trial: FrozenTrial, deaths: int) -> None:
    """Mark a trial as failed, and queue its setting, unless another process has done so."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return
    queue_again(study, trial, deaths)
