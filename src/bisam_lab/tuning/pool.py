"""The trials of a tuning in parallel processes."""

import math
import time
from collections.abc import Generator

import optuna

from ..parallel.checks import check_recipe
from ..parallel.engine import Engine
from ..parallel.events import EpochDone, Event, JobEnded, Note
from ..parallel.pool import Pool
from ..parallel.pools import at_once, start
from ..parallel.worker import Reporter, send, stopping
from ..run.observer import Stopped
from .claim import claim, recover
from .result import TrialResult
from .trial import TrialError, run_trial
from .tuning import FIRST_SEED, Tuning, ended

__all__ = ["run_trials"]

_study: optuna.Study | None = None


def run_trials(
    tuning: Tuning, study: optuna.Study, engine: Engine, timeout: float | None = None
) -> Generator[Event[TrialResult], None, None]:
    """Run trials until enough have ended or the time is over, and yield what they report.

    Close the generator, and the processes save their state and stop.

    Args:
        tuning: what is searched.
        study: Optuna's, as :meth:`Tuning.create` returned it.
        engine: where they run.
        timeout: seconds after which no trial goes on; None sets no limit.

    Raises:
        RecipeError: data are missing or too few, the network cannot be built, or there is no such accelerator.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    with tuning.lock:
        recover(tuning, study)
    missing = tuning.trials - sum(map(ended, study.get_trials(deepcopy=False)))
    if missing <= 0:
        return
    note = check_recipe(tuning.recipe, tuning.data_dir, FIRST_SEED)
    if note:
        yield Note("data", note)
    pool: Pool[TrialResult]
    with start(engine, tuning.recipe, missing, tuning.folder, __name__) as pool:
        for _ in range(min(at_once(engine, tuning.recipe), missing)):
            pool.submit(_run, tuning)
        for event in pool.events(math.inf if timeout is None else time.monotonic() + timeout):
            if isinstance(event, JobEnded):
                pool.submit(_run, tuning)
            yield event


def _run(tuning: Tuning) -> list[JobEnded[TrialResult]]:
    """Run one trial in a worker process; there is none if no further trial is wanted, or the process has to stop."""
    global _study
    if stopping():
        return []
    _study = _study or tuning.open()
    claimed = claim(tuning, _study)
    if claimed is None:
        return []
    job = f"trial {claimed.trial.number}"
    try:
        return [JobEnded(job, run_trial(claimed, Reporter(job), lambda *told: send(EpochDone(job, *told))))]
    except TrialError as error:
        return [JobEnded(job, error=str(error))]
    except Stopped:
        return []
