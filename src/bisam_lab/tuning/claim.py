"""Assign each trial to one process, and to another process when the first one has died.

The storage marks a claimed trial as running, and the process holds a lock on a file. The kernel releases the lock when
the process ends, for whatever reason. Another machine may have a folder of its own, whose locks cannot be read from
here; its processes write the time into the storage once a minute instead.
"""

import contextlib
import platform
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from .tuning import Tuning, ended

__all__ = ["Claim", "claim", "recover"]

#: Seconds between two signs of life of a process, and seconds without one after which it counts as dead.
BEAT, DEAD = 60.0, 600.0
#: How often a setting is run. A setting that kills its process each time must not run for ever.
TRIES = 3


class Claim:
    """A trial that this process runs until it calls :meth:`end` or :meth:`put_back`."""

    def __init__(self, tuning: Tuning, study: optuna.Study, trial: Trial) -> None:
        self.tuning, self.study, self.trial = tuning, study, trial
        self._lock = _lock(tuning, trial.number)
        self._lock.acquire(timeout=0)
        self._over = threading.Event()
        if tuning.storage is not None:
            trial.set_user_attr("place", _place(tuning))
            threading.Thread(target=self._beat, daemon=True).start()

    @property
    def folder(self) -> Path:
        """Folder of its checkpoints. A trial that continues the work of another one uses the other's folder."""
        name = str(self.trial.user_attrs.get("folder", ""))
        own = _name(self.trial.number)  # a name that leads elsewhere would be deleted there
        return self.tuning.folder / "trials" / (name if re.fullmatch(r"[0-9]{4,9}", name) else own)

    @property
    def settings(self) -> dict[str, float]:
        """The numbers to train with."""
        return self.tuning.space.settings(self.trial.params)

    @property
    def is_default(self) -> bool:
        """Whether it is the recipe's own setting."""
        return "default" in self.trial.user_attrs

    def end(self, state: TrialState, score: float | None = None, error: str | None = None) -> None:
        """Record how the trial ended, and delete its checkpoints."""
        if error is not None:
            self.trial.set_user_attr("error", error)
        with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another process took this one for dead
            self.study.tell(self.trial.number, score, state)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    def put_back(self) -> None:
        """Let another process continue the trial."""
        with self.tuning.lock:
            self._release()
            _again(self.study, self.study.trials[self.trial.number], tries=0)

    def _release(self) -> None:
        self._over.set()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(UpdateFinishedTrialError):
                self.trial.set_user_attr("alive", time.time())


def claim(tuning: Tuning, study: optuna.Study) -> Claim | None:
    """Take the next trial, with a value for each parameter; None if enough trials have ended or are running.

    Raises:
        RecipeError: the study is another tuning's, which was begun at the same time.
    """
    with tuning.lock:
        tuning.check(study)
        recover(tuning, study)
        trials = study.get_trials(deepcopy=False)
        taken = sum(ended(trial) or trial.state == TrialState.RUNNING for trial in trials)
        if taken >= tuning.trials:
            return None
        # A seed per trial: processes differ, and a tuning that was interrupted draws what an uninterrupted one draws.
        study.sampler = TPESampler(seed=taken)
        trial = study.ask()
        trial.set_user_attr("recipe", tuning.digest)
        for dimension in tuning.space:
            dimension.suggest(trial)
        return Claim(tuning, study, trial)


def recover(tuning: Tuning, study: optuna.Study) -> None:
    """Queue the trials again whose processes have died."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(tuning, trial):
            _again(study, trial, tries=1)


def _again(study: optuna.Study, trial: FrozenTrial, tries: int) -> None:
    """Mark a trial as failed, and queue its setting as a new trial that continues from its checkpoints."""
    before = trial.user_attrs.get("tries", 0)
    tries += before if type(before) is int else TRIES
    if tries >= TRIES:
        with contextlib.suppress(UpdateFinishedTrialError):
            study._storage.set_trial_user_attr(trial._trial_id, "error", f"its process died, {tries} times")
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return
    parameters: dict[str, Any] = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if tries < TRIES and parameters:
        kept = {key: value for key, value in trial.user_attrs.items() if key in ("default", "folder")}
        study.enqueue_trial(parameters, {"folder": _name(trial.number), **kept, "tries": tries})


def _alive(tuning: Tuning, trial: FrozenTrial) -> bool:
    if tuning.storage is None or trial.user_attrs.get("place") == _place(tuning):
        lock = _lock(tuning, trial.number)
        try:
            with lock.acquire(timeout=0):
                Path(lock.lock_file).unlink(missing_ok=True)
                return False
        except Timeout:
            return True
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    alive = trial.user_attrs.get("alive", started)
    return isinstance(alive, int | float) and time.time() - alive < DEAD


def _lock(tuning: Tuning, number: int) -> FileLock:
    (tuning.folder / "trials").mkdir(exist_ok=True)
    return FileLock(tuning.folder / "trials" / f"{_name(number)}.lock")


def _name(number: int) -> str:
    return f"{number:04d}"


def _place(tuning: Tuning) -> str:
    return f"{platform.node()}:{tuning.folder.resolve()}"
