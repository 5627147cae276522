"""Runs of one method on several seeds, each in a folder of its own, as ``bisam train`` trains one."""

from collections.abc import Generator, Mapping
from pathlib import Path

from ..parallel.checks import check_recipe
from ..parallel.engine import Engine
from ..parallel.events import Event, Note
from ..parallel.pool import Pool
from ..parallel.pools import start
from ..recipe import Recipe
from ..run.result import Run, RunResult
from .remote import Remote
from .remote_run import RemoteRun
from .work import Cell, How, train_cells

__all__ = ["run_seeds"]


def run_seeds(
    recipe: Recipe, runs: Mapping[Run, Path], engine: Engine, folder: Path, how: How, remote: Remote | None = None
) -> Generator[Event[RunResult], None, None]:
    """Train runs, and yield what they report; finished ones at once.

    Close the generator, and the processes save their state and stop.

    Args:
        recipe: of the runs' variant.
        runs: and the folder of each.
        engine: where they run.
        folder: of all of them.
        how: they are trained.
        remote: where the folder lies in an object storage.

    Raises:
        RecipeError: data are missing or too few, a network cannot be built, or there is no such accelerator.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    pool: Pool[RunResult]
    with start(engine, recipe, len(runs), folder) as pool:
        yield from pool.notes()
        (note,) = pool.ask(check_recipe, [(recipe, how.data_dir, 0, engine.is_here)])
        if note:
            yield Note("data", note)
        for run, place in runs.items():
            there = None if remote is None else RemoteRun.of(remote, place)
            pool.submit(train_cells, [Cell(recipe, run, place, there)], how, names=[str(run)])
        yield from pool.events()
