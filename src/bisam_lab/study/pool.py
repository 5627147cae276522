"""The runs of a study in parallel processes."""

from collections.abc import Generator
from pathlib import Path

from ..parallel.checks import check_recipe
from ..parallel.events import EpochDone, Event, JobEnded
from ..parallel.workers import Pool, Reporter, send, stopping
from ..recipe import Recipe, RecipeError
from ..run.checkpoint import CheckpointError
from ..run.environment import cores
from ..run.observer import Stopped
from ..run.result import Epoch, Run, RunResult
from .files import UnreadableError
from .folder import Study

__all__ = ["run_study"]


def run_study(study: Study, jobs: int, every: float = 30.0) -> Generator[Event[RunResult], None, None]:
    """Train the runs that are not finished, in ``jobs`` processes, and yield what they report.

    Close the generator, and the processes save their state and stop.

    Args:
        study: its finished runs are not run again.
        jobs: runs at once.
        every: seconds between checkpoints.

    Raises:
        RecipeError: data are missing or too few, a network cannot be built, or there is no such accelerator.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    done = study.results()
    pending = [run for run in study.runs if run not in done]
    if not pending:
        return
    with Pool[RunResult](min(jobs, len(pending)), max(1, cores() // jobs)) as pool:
        variants = dict.fromkeys(run.variant for run in pending)
        pool.ask(check_recipe, [(study.variant(name), study.data_dir, 0) for name in variants])
        for run in pending:
            pool.submit(_run, study.recipe_of(run), run, study.path(run), study.data_dir, every)
        yield from pool.events()


class _RunReporter(Reporter):
    """Reports each epoch of a run."""

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__(str(run))
        self.epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        send(EpochDone(self.job, epoch.epoch, self.epochs, epoch.validation_score))


def _run(recipe: Recipe, run: Run, folder: Path, data_dir: Path | None, every: float) -> JobEnded[RunResult]:
    """Train a run in a worker process; whatever goes wrong is the end of this run alone."""
    from .cell import Busy, run_cell  # here: the process that only starts the runs needs no engine

    job = str(run)
    try:
        if stopping():
            raise Stopped
        observer = _RunReporter(run, recipe.train.epochs)
        return JobEnded(job, run_cell(recipe, run, folder, data_dir=data_dir, observer=observer, every=every))
    except Busy:
        return JobEnded(job)
    except Stopped:
        return JobEnded(job, error="its process was told to stop")
    except (RecipeError, CheckpointError, UnreadableError) as error:
        return JobEnded(job, error=str(error))
    except BaseException as error:  # noqa: BLE001 a user's own network may raise anything, even SystemExit
        return JobEnded(job, error=f"{type(error).__name__}: {error}")
