"""The runs of a study in parallel processes."""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..parallel.checks import check_recipe
from ..parallel.engine import Engine
from ..parallel.events import Event, Note
from ..parallel.pool import Pool
from ..parallel.pools import at_once, on_cpu, start
from ..recipe import Recipe
from ..run.result import Run, RunResult
from ..stack.plan import FASTER, LARGEST, LARGEST_PASS, Stacking, deal, stack_size
from .folder import Study
from .measuring import lacking, measure_kept, too_late, without_weights
from .work import Cell, How, train_cells

if TYPE_CHECKING:
    from ..stack.trial import Trial

__all__ = ["run_study"]


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
        yield from pool.notes()
        found = pool.ask(check_recipe, [(study.variant(name), study.data_dir, 0, engine.is_here) for name in variants])
        yield from (Note("data", note) for note in dict.fromkeys(found) if note)
        if unmeasured:
            places = [(study.recipe_of(run), run, study.path(run), study.data_dir) for run in unmeasured]
            asked = [(*place, study.recipe.measures, study.there(place[1])) for place in places]
            pool.ask(measure_kept, asked)
            yield Note("measures", f"taken of the kept weights of {len(unmeasured)} finished runs")
        groups = [[run] for run in pending]
        if stack != "off":
            groups = []
            for kind in dict.fromkeys((run.variant, run.equal_cost) for run in pending):
                runs = [run for run in pending if (run.variant, run.equal_cost) == kind]
                groups += yield from _stacks(pool, study, runs, engine, stack)
        how = How(study.data_dir, every, keep_weights=keep_weights, patience=engine.patience)
        for group in groups:
            cells = [Cell(study.recipe_of(run), run, study.path(run), study.there(run)) for run in group]
            pool.submit(train_cells, cells, how, names=[str(run) for run in group])
        yield from pool.events()


def _stacks(
    pool: Pool[RunResult], study: Study, runs: Sequence[Run], engine: Engine, stack: Stacking
) -> Generator[Note, None, list[list[Run]]]:
    """Return the runs of one variant in stacks, or one by one, and say why."""
    recipe, job = study.recipe_of(runs[0]), runs[0].variant or "all runs"
    jobs, largest = at_once(engine, recipe), LARGEST["cpu" if on_cpu(engine, recipe) else "cuda"]
    singly = [[run] for run in runs]
    if recipe.engine.processes > 1:
        if stack == "on":
            yield Note(job, f"trained one by one: each takes engine.devices={recipe.engine.devices}")
        return singly
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
