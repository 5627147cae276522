"""The trials of a tuning in parallel processes."""

import math
import time
from collections.abc import Generator

import optuna
from optuna.trial import TrialState

from ..parallel.checks import check_recipe
from ..parallel.engine import Engine
from ..parallel.events import EpochDone, Event, JobEnded, Note
from ..parallel.pool import Pool
from ..parallel.pools import at_once, start
from ..parallel.worker import Reporter, send, stopping
from ..run.observer import Stopped
from .claim import Claim, TakenOver, claim, recover
from .result import TrialResult
from .trial import TrialError, run_trial
from .tuning import FIRST_SEED, Tuning, ended

__all__ = ["run_trials"]

#: Seconds between two looks at the trials of other processes.
LOOK = 2.0

_study: optuna.Study | None = None


def run_trials(
    tuning: Tuning, study: optuna.Study, engine: Engine, timeout: float | None = None
) -> Generator[Event[TrialResult], None, None]:
    """Run trials until enough have ended or the time is over, and yield what they report.

    In a database nobody can tell at once whether the trials of another process are alive. They are waited for, and run
    again if it has died. Close the generator, and the processes save their state and stop.

    Args:
        tuning: what is searched.
        study: Optuna's, as :meth:`Tuning.create` returned it.
        engine: where they run.
        timeout: seconds after which no trial goes on; None sets no limit.

    Raises:
        RecipeError: data are missing or too few, the network cannot be built, or there is no such accelerator.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    end = math.inf if timeout is None else time.monotonic() + timeout
    with tuning.answering, tuning.turn(study):
        recover(tuning, study)
    missing = _missing(tuning, study)
    if missing <= 0:
        return
    note = check_recipe(tuning.recipe, tuning.data_dir, FIRST_SEED, engine.is_here)
    if note:
        yield Note("data", note)
    pool: Pool[TrialResult]
    with start(engine, tuning.recipe, missing, tuning.folder, __name__) as pool:
        yield from pool.notes()
        while missing > 0:
            for _ in range(min(at_once(engine, tuning.recipe), missing)):
                pool.submit(_run, tuning)
            for event in pool.events(end):
                if isinstance(event, JobEnded):
                    pool.submit(_run, tuning)
                yield event
            missing = yield from _wait(tuning, study, end)


def _missing(tuning: Tuning, study: optuna.Study) -> int:
    with tuning.answering:
        return tuning.trials - sum(map(ended, study.get_trials(deepcopy=False)))


def _wait(tuning: Tuning, study: optuna.Study, end: float) -> Generator[Note, None, int]:
    """Wait while other processes run all trials that are missing; return how many are free to be run here."""
    told = False
    while tuning.storage is not None and time.monotonic() < end:
        with tuning.answering, tuning.turn(study):
            recover(tuning, study)
        with tuning.answering:
            running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        free = _missing(tuning, study) - running
        if free > 0 or not running:
            return max(free, 0)
        if not told:
            text = f"other processes run the last {running}: waiting for them, or {tuning.silent} s after they died"
            yield Note("trials", f"{text}; Ctrl-C leaves")
            told = True
        time.sleep(min(LOOK, max(end - time.monotonic(), 0.0)))
    return 0


def _run(tuning: Tuning) -> list[JobEnded[TrialResult]]:
    """Run one trial in a worker process; there is none if no further trial is wanted, or the process has to stop."""
    with tuning.answering:
        claimed = None if stopping() else claim(tuning, _opened(tuning))
        return [] if claimed is None else _ended(claimed)


def _opened(tuning: Tuning) -> optuna.Study:
    global _study
    _study = _study or tuning.open()
    return _study


def _ended(claimed: Claim) -> list[JobEnded[TrialResult]]:
    job = f"trial {claimed.trial.number}"
    try:
        return [JobEnded(job, run_trial(claimed, Reporter(job), lambda *told: send(EpochDone(job, *told))))]
    except TrialError as error:
        return [JobEnded(job, error=str(error))]
    except TakenOver:
        return [JobEnded(job)]
    except Stopped:
        return []
