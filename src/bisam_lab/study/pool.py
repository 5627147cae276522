"""The runs of a study in parallel processes."""

import errno
import math
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import one_line
from ..parallel.checks import check_recipe
from ..parallel.engine import Engine
from ..parallel.events import EpochDone, Event, JobEnded, Note
from ..parallel.pool import Pool
from ..parallel.pools import at_once, on_cpu, start
from ..parallel.worker import Reporter, send, stopping
from ..recipe import Recipe, RecipeError
from ..run.checkpoint import CheckpointError
from ..run.observer import Stopped
from ..run.result import Epoch, Run, RunResult
from ..stack.plan import FASTER, LARGEST, LARGEST_PASS, Stacking, deal, stack_size
from .files import UnreadableError
from .folder import Study
from .measuring import lacking, measure_kept, too_late, without_weights

if TYPE_CHECKING:
    from ..run.asking import Asking, Clock
    from ..stack.trial import Trial

__all__ = ["run_study"]


class _Cell(NamedTuple):
    """A run of a study, as a worker process needs it."""

    recipe: Recipe
    run: Run
    folder: Path


def run_study(
    study: Study, engine: Engine, every: float = 30.0, stack: Stacking = "off", keep_weights: bool = False
) -> Generator[Event[RunResult], None, None]:
    """Train the runs that are not finished, and yield what they report.

    Close the generator, and the processes save their state and stop.

    Args:
        study: its finished runs are not run again.
        engine: where they run; a stack of runs is one job.
        every: seconds between checkpoints.
        stack: whether a process trains several runs together: where a short trial finds that faster (``auto``),
            wherever it can be done (``on``), or never.
        keep_weights: keep the tested weights of each run.

    Raises:
        RecipeError: data are missing or too few, a network cannot be built, or there is no such accelerator.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    with study.at_work():
        yield from _run_study(study, engine, every, stack, keep_weights)


def _run_study(
    study: Study, engine: Engine, every: float, stack: Stacking, keep_weights: bool
) -> Generator[Event[RunResult], None, None]:
    done = study.results()
    pending, unmeasured = [run for run in study.runs if run not in done], lacking(study, done)
    if keep_weights and (lost := without_weights(study, done)):
        yield Note("--keep-weights", too_late(lost))
    if not pending and not unmeasured:
        return
    pool: Pool[RunResult]
    with start(engine, study.recipe, len(pending) + len(unmeasured), study.folder) as pool:
        variants = dict.fromkeys(run.variant for run in (*pending, *unmeasured))
        found = pool.ask(check_recipe, [(study.variant(name), study.data_dir, 0) for name in variants])
        yield from (Note("data", note) for note in dict.fromkeys(found) if note)
        if unmeasured:
            asked = [(study.recipe_of(r), r, study.path(r), study.data_dir, study.recipe.measures) for r in unmeasured]
            pool.ask(measure_kept, asked)
            yield Note("measures", f"taken of the kept weights of {len(unmeasured)} finished runs")
        groups = [[run] for run in pending]
        if stack != "off":
            groups = []
            for kind in dict.fromkeys((run.variant, run.equal_cost) for run in pending):
                runs = [run for run in pending if (run.variant, run.equal_cost) == kind]
                groups += yield from _stacks(pool, study, runs, engine, stack)
        for group in groups:
            cells = [_Cell(study.recipe_of(run), run, study.path(run)) for run in group]
            pool.submit(
                _run, cells, study.data_dir, every, keep_weights, engine.patience, names=[str(run) for run in group]
            )
        yield from pool.events()


def _stacks(
    pool: Pool[RunResult], study: Study, runs: Sequence[Run], engine: Engine, stack: Stacking
) -> Generator[Note, None, list[list[Run]]]:
    """Return the runs of one variant in stacks, or one by one, and say why."""
    recipe, job = study.recipe_of(runs[0]), runs[0].variant or "all runs"
    jobs, largest = at_once(engine, recipe), LARGEST["cpu" if on_cpu(engine, recipe) else "cuda"]
    singly = [[run] for run in runs]
    while (size := stack_size(len(runs), jobs, largest)) > 1:
        (trial,) = pool.ask(_try, [(recipe, study.data_dir, size, math.inf if stack == "on" else LARGEST_PASS)])
        if trial.memory:
            largest = size // 2
            continue
        if trial.refused is not None:
            if stack == "on":
                yield Note(job, f"trained one by one: {trial.refused}")
            return singly
        if stack == "auto" and trial.ratio >= FASTER:
            return singly
        yield Note(job, f"trained {size} at a time: one pass of them takes {trial.ratio:.2f} of the time one by one")
        return deal(runs, recipe, jobs, largest)
    return singly


def _try(recipe: Recipe, data_dir: Path | None, size: int, slowest: float) -> "Trial":
    """See :func:`bisam_lab.stack.trial.try_stack`; in a worker process."""
    from ..stack.trial import try_stack

    return try_stack(recipe, data_dir, size, slowest)


class _RunReporter(Reporter):
    """Reports each epoch of a run."""

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__(str(run))
        self.epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        send(EpochDone(self.job, epoch.epoch, self.epochs, epoch.validation_score))


def _run(
    cells: Sequence[_Cell], data_dir: Path | None, every: float, keep_weights: bool = False, patience: float = 0.0
) -> list[JobEnded[RunResult]]:
    """Train one run, or several together, in a worker process."""
    from ..run.asking import (
        alone,
    )  # here, as in all that follows: the process that only starts the runs needs no engine
    from ..stack.together import together

    works = [partial(_ended, given, data_dir, every, len(cells), keep_weights, patience) for given in cells]
    return [alone(works[0](clock=time.perf_counter))] if len(works) == 1 else together(works)


def _ended(
    given: _Cell, data_dir: Path | None, every: float, stack: int, keep_weights: bool, patience: float, clock: "Clock"
) -> "Asking[JobEnded[RunResult]]":
    """Train a run; whatever goes wrong is the end of this run alone."""
    from .cell import Busy, cell

    recipe, run, folder = given
    job = str(run)
    try:
        if stopping():
            raise Stopped
        observer = _RunReporter(run, recipe.train.epochs)
        result = yield from cell(
            recipe,
            run,
            folder,
            data_dir=data_dir,
            observer=observer,
            every=every,
            clock=clock,
            stack=stack,
            keep_weights=keep_weights,
            patience=patience,
        )
        return JobEnded(job, result)
    except Busy:
        return JobEnded(job)
    except Stopped:
        return JobEnded(job, error="its process was told to stop")
    except GeneratorExit:  # another run of the stack has ended in a way that ends them all
        raise
    except (RecipeError, CheckpointError, UnreadableError) as error:
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
