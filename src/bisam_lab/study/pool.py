"""The runs of a study in parallel processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from ..recipe import Recipe, RecipeError
from ..run.checkpoint import CheckpointError
from ..run.environment import cores
from ..run.observer import Observer, Stopped
from ..run.result import Epoch, Run, RunResult
from ..run.setup import check
from . import workers
from .cell import Busy, run_cell
from .files import UnreadableError
from .folder import Study

__all__ = ["Event", "Finished", "Note", "Progress", "default_jobs", "run_all"]


@dataclass(frozen=True)
class Progress:
    """An epoch that a run has finished."""

    run: Run
    epoch: Epoch


@dataclass(frozen=True)
class Note:
    """What a run's user should know."""

    run: Run
    text: str


@dataclass(frozen=True)
class Finished:
    """A run that has ended: with its result, or with what went wrong; neither if another process is training it."""

    run: Run
    result: RunResult | None
    error: str | None = None


Event: TypeAlias = Progress | Note | Finished


def default_jobs(recipe: Recipe) -> int:
    """Return how many runs to train at once: one a core on CPUs, one on an accelerator."""
    on_cpu = recipe.engine.accelerator == "cpu" or not torch.accelerator.is_available()
    return cores() if on_cpu else 1


def run_all(study: Study, jobs: int, every: float = 30.0) -> Iterator[Event]:
    """Run what is not finished in ``jobs`` processes, and yield what happens.

    Closing the iterator (an exception or Ctrl-C in its loop does) lets the processes save and end.

    Raises:
        RecipeError: data that are missing or too few, a network that cannot be built, no such accelerator.
        BrokenProcessPool: a process was killed, perhaps for want of memory.
    """
    done = study.results()
    pending = [run for run in study.runs if run not in done]
    if not pending:
        return
    for name in dict.fromkeys(run.variant for run in pending):  # what is missing is said here, once and at once
        recipe = study.recipe_of(Run(name, 0, ""))
        check_accelerator(recipe.engine.accelerator)
        check(recipe, study.data_dir)
    with workers.pool(min(jobs, len(pending)), max(1, cores() // jobs)) as (processes, told):
        futures: dict[Future[RunResult], Run] = {
            processes.submit(_run, study.recipe_of(run), run, study.path(run), study.data_dir, every): run
            for run in pending
        }
        while futures:
            ended, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from told()
            for future in ended:
                yield _finished(futures.pop(future), future)


def check_accelerator(name: str) -> None:
    """Refuse an accelerator that is not there.

    Raises:
        RecipeError: it is not.
    """
    there: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name in there and not there[name]():
        raise RecipeError(f"engine.accelerator={name!r}: torch {torch.__version__} finds none here; use auto or cpu")


class _Reporting(Observer):
    """Sends epochs and notes to the parent, and stops when this process is told to."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def stopping(self) -> bool:
        return workers.stopping()

    def epoch(self, epoch: Epoch) -> None:
        workers.tell(Progress(self.run, epoch))

    def note(self, text: str) -> None:
        workers.tell(Note(self.run, text))


def _run(recipe: Recipe, run: Run, folder: Path, data_dir: Path | None, every: float) -> RunResult:
    if workers.stopping():
        raise Stopped
    return run_cell(recipe, run, folder, data_dir=data_dir, observer=_Reporting(run), every=every)


def _finished(run: Run, future: "Future[RunResult]") -> Finished:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    if error is None or isinstance(error, Busy):
        return Finished(run, future.result() if error is None else None)
    said = isinstance(error, RecipeError | CheckpointError | UnreadableError)
    return Finished(run, None, str(error) if said else f"{type(error).__name__}: {error}")
