"""What a worker process does with the runs that it gets: one alone, or several together."""

import errno
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import one_line
from ..parallel.events import EpochDone, JobEnded
from ..parallel.worker import Reporter, send, stopping
from ..recipe import Recipe, RecipeError
from ..run.checkpoint import CheckpointError
from ..run.observer import Stopped
from ..run.result import Epoch, Run, RunResult
from .files import UnreadableError
from .remote_run import RemoteRun
from .store import StoreError

if TYPE_CHECKING:
    from ..run.asking import Asking, Clock

__all__ = ["Cell", "How", "train_cells"]


#: How a run ended whose process was told to stop.
TOLD = "its process was told to stop"


class Cell(NamedTuple):
    """A run, its recipe, and its folder; or where it lies in an object storage, of which each machine has a copy."""

    recipe: Recipe
    run: Run
    folder: Path
    there: RemoteRun | None = None


class How(NamedTuple):
    """How runs are trained; see :func:`.cell.cell`."""

    data_dir: Path | None
    every: float
    keep: bool = False
    keep_every: int | None = None
    keep_weights: bool = False
    patience: float = 0.0


class _RunReporter(Reporter):
    """Reports each epoch of a run."""

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__(str(run))
        self.epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        send(EpochDone(self.job, epoch.epoch, self.epochs, epoch.validation_score))


def train_cells(cells: Sequence[Cell], how: How) -> list[JobEnded[RunResult]]:
    """Train one run, alone or on several devices, or several runs together, in a worker process."""
    from ..run.asking import alone  # here, as in all that follows: the process that starts the runs needs no engine
    from ..stack.together import together

    if cells[0].recipe.engine.processes > 1:
        return [_by_crew(given, how) for given in cells]
    works = [partial(_ended, given, how, len(cells)) for given in cells]
    return [alone(works[0](clock=time.perf_counter))] if len(works) == 1 else together(works)


def _by_crew(given: Cell, how: How) -> JobEnded[RunResult]:
    """Train a run by several processes together."""
    from ..parallel.crew import crew

    job = str(given.run)
    try:
        ended = list(crew(job, given.recipe.engine.processes, _in_crew, given, how))
    except ChildProcessError as error:
        return JobEnded(job, error=str(error))
    return ended[-1] if ended else JobEnded(job, error=TOLD)


def _in_crew(given: Cell, how: How) -> list[JobEnded[RunResult]]:
    """Do one process's part of a run."""
    from ..run.asking import alone

    return [alone(_ended(given, how, 1, time.perf_counter))]


def _ended(given: Cell, how: How, stack: int, clock: "Clock") -> "Asking[JobEnded[RunResult]]":
    """Train a run; whatever goes wrong is the end of this run alone."""
    from .cell import Busy, cell
    from .spread import spread

    recipe, run, folder, there = given
    folder, job = folder if there is None else there.folder, str(run)
    try:
        if stopping() and recipe.engine.processes == 1:  # several stop together, where they have met
            raise Stopped
        observer = _RunReporter(run, recipe.train.epochs)
        options = {"observer": observer, "clock": clock, **how._asdict()}
        if recipe.engine.processes > 1:
            return JobEnded(job, (yield from spread(recipe, run, folder, **options)))
        return JobEnded(job, (yield from cell(recipe, run, folder, stack=stack, there=there, **options)))
    except Busy:
        return JobEnded(job)
    except Stopped:
        return JobEnded(job, error=TOLD)
    except GeneratorExit:  # another run of the stack has ended in a way that ends them all
        raise
    except (RecipeError, CheckpointError, UnreadableError, StoreError) as error:
        return JobEnded(job, error=one_line(str(error)))
    except BaseException as error:  # noqa: BLE001 a user's own network may raise anything, even SystemExit
        return JobEnded(job, error=one_line(_reason(error, folder)))


def _reason(error: BaseException, folder: Path) -> str:
    """Say why a run failed. A logger hides a full disk behind errors of its own."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{folder}: no space is left on the disk: free some"
        inner = inner.__cause__ or inner.__context__
    return f"{type(error).__name__}: {error}"
