"""The audits of a folder in parallel processes, each a task of its own."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..parallel.engine import Engine
from ..parallel.events import Event, JobEnded, Note
from ..parallel.pool import Pool
from ..parallel.pools import at_once, start
from ..recipe import Recipe
from . import work
from .checkpoint import Place
from .folder import Audits
from .work import DATA, audit_task

__all__ = ["most_demanding", "run_audits"]


def run_audits(audits: Audits, engine: Engine, data_dir: Path | None) -> Generator[Event[dict[str, Any]], None, None]:
    """Audit what is missing, and yield what the processes report. What is found is added to the folder's audits.

    Close the generator, and the processes keep what is measured and stop.

    Args:
        audits: of the folder.
        engine: where they run. On this machine as many run at once as the command names, if there are so many cores,
            and they share the cores.
        data_dir: folder of the data sets.

    Raises:
        RecipeError: there is no such cluster.
        BrokenProcessPool: a process was killed, perhaps because memory ran out.
    """
    missing = audits.missing
    if not missing:
        return
    recipe = most_demanding([task.place for task in audits.tasks.values()])
    if engine.name == "local":
        engine = replace(engine, jobs=min(at_once(engine, recipe), len(audits.tasks)))
    names = {task.mark: task.place.name for task in missing}
    said: set[str] = set()
    pool: Pool[dict[str, Any]]
    with start(engine, recipe, len(missing), audits.folder, work.__name__) as pool:
        yield from pool.notes()
        for task in missing:
            pool.submit(audit_task, task, data_dir, names=[task.mark])
        for event in pool.events():
            if isinstance(event, Note) and event.job == DATA:
                if event.text in said:
                    continue
                said.add(event.text)
            if isinstance(event, JobEnded) and event.result is not None:
                event = replace(event, result=audits.add(event.job, event.result))
            yield replace(event, job=names.get(event.job, event.job))


def most_demanding(places: Sequence[Place]) -> Recipe:
    """Return a recipe that may use a GPU, if there is one: what its job gets is enough for the others.

    An audit takes one device, also of a run that several have trained.
    """
    chosen = max((place.recipe for place in places), key=lambda recipe: recipe.engine.accelerator != "cpu")
    return chosen.model_copy(update={"engine": chosen.engine.on_one_device})
