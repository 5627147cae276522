"""What ``bisam audit`` does with the audits of a folder: do those that are missing, and show what each found."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from ..auditing.folder import Audits
from ..auditing.pool import run_audits
from ..auditing.work import audited
from ..parallel.engine import Engine
from .live import Live, display

__all__ = ["audit_one", "audit_several"]


def audit_one(audits: Audits, data_dir: Path | None, console: Console, show: Callable[[dict[str, Any]], None]) -> None:
    """Do the audit of one checkpoint in this process.

    Raises:
        RecipeError: it cannot be done.
        KeyboardInterrupt: Ctrl-C ended it. What is measured is shown, if that is two batches or more.
    """
    (task,) = audits.missing
    name = task.place.name
    with display(console) as bars:
        bar = bars.add_task(f"{name}: loading", total=None)

        def progress(done: int, total: int) -> None:
            bars.update(bar, description=name, completed=done, total=total)
            if not console.is_terminal and 4 * done // total > 4 * (done - 1) // total:
                console.print(f"{name}: {100 * done // total} %", highlight=False, markup=False)

        def note(text: str) -> None:
            console.print(text, highlight=False, markup=False)

        found = audits.add(task.mark, audited(task, data_dir, note, progress))
    show(found)
    if found["stopped"]:
        raise KeyboardInterrupt


def audit_several(
    audits: Audits, engine: Engine, data_dir: Path | None, console: Console, show: Callable[[dict[str, Any]], None]
) -> bool:
    """Do the audits that are missing where the engine says, and return whether one failed.

    Whatever ends it, what the processes have measured is shown and written.
    """
    events = run_audits(audits, engine, data_dir)
    with Live(console, "all audits", len(audits.tasks), len(audits.found)) as live:
        try:
            with closing(events):
                for ended in live.ended(events):
                    live.set_done(len(audits.found))
                    if ended.result is not None:
                        show(ended.result)
                    else:
                        live.print(f"{ended.job} failed: {ended.error}; the same command tries it again", "red")
        finally:
            for found in audits.collect(stopped=True):
                show(found)
            audits.write()
    return live.failed
