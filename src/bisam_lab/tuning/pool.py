"""The trials of a tuning in parallel processes."""

import math
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TypeAlias

from optuna.study import Study
from optuna.trial import TrialState

from ..run.environment import cores
from ..run.observer import Observer, Stopped
from ..run.setup import check
from ..study import workers
from ..study.pool import check_accelerator
from .claim import claim, recover
from .study import FIRST_SEED, Tuning, ended
from .trial import TrialError, run

__all__ = ["Ended", "Event", "Failed", "Note", "Progress", "run_all"]


@dataclass(frozen=True)
class Progress:
    """An epoch that a trial has finished; ``score`` is the best so far, the mean over the seeds so far."""

    trial: int
    done: int
    total: int
    score: float


@dataclass(frozen=True)
class Note:
    """What a trial's user should know."""

    trial: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A trial that has ended."""

    trial: int
    settings: dict[str, float]
    score: float
    pruned: bool
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A trial that could not be trained."""

    text: str


Event: TypeAlias = Progress | Note | Ended | Failed

_study: Study | None = None


def run_all(tuning: Tuning, study: Study, jobs: int, timeout: float | None = None) -> Generator[Event, None, None]:
    """Run trials in ``jobs`` processes until enough have ended or the time is up, and yield what happens.

    Closing the iterator (an exception or Ctrl-C in its loop does) lets the processes save and end.

    Raises:
        RecipeError: data that are missing, or too few; an accelerator that is not there.
        BrokenProcessPool: a process was killed, perhaps for want of memory.
    """
    with tuning.lock:
        recover(tuning, study)
    missing = tuning.trials - sum(map(ended, study.get_trials(deepcopy=False)))
    if missing <= 0:
        return
    check_accelerator(tuning.recipe.engine.accelerator)
    check(tuning.recipe, tuning.data_dir, FIRST_SEED)
    with workers.pool(min(jobs, missing), max(1, cores() // jobs), __name__) as (processes, told):
        futures = {processes.submit(_run, tuning) for _ in range(min(jobs, missing))}
        end = math.inf if timeout is None else time.monotonic() + timeout
        while futures and time.monotonic() < end:
            over, futures = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from told()
            for future in over:
                if (event := _outcome(future)) is not None:  # else enough have ended, or run elsewhere
                    futures.add(processes.submit(_run, tuning))
                    yield event


def _outcome(future: "Future[Ended | None]") -> Ended | Failed | None:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, TrialError):
        return Failed(str(error))
    if isinstance(error, Stopped):  # someone told the process itself to end
        return None
    raise error


class _Reporting(Observer):
    """Sends notes to the parent, and stops when this process is told to."""

    def __init__(self, trial: int) -> None:
        self.trial = trial

    def stopping(self) -> bool:
        return workers.stopping()

    def note(self, text: str) -> None:
        workers.tell(Note(self.trial, text))


def _run(tuning: Tuning) -> Ended | None:
    """Run one trial, if one is wanted."""
    global _study
    if workers.stopping():
        raise Stopped
    _study = _study or tuning.open()
    claimed, began = claim(tuning, _study), time.perf_counter()
    if claimed is None:
        return None
    number = claimed.trial.number
    score = run(claimed, _Reporting(number), lambda *told: workers.tell(Progress(number, *told)))
    pruned = _study.trials[number].state == TrialState.PRUNED
    return Ended(number, claimed.settings, score, pruned, time.perf_counter() - began)
