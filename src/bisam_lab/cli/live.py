"""A study while it runs: a line a run, and what is left of the time."""

import contextlib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..run.result import Run
from ..study.folder import Study
from ..study.pool import Finished, Note, run_all

__all__ = ["display", "lost_processes", "run_live"]


def run_live(study: Study, jobs: int, console: Console) -> bool:
    """Run what is missing under a live display; return whether no run failed."""
    done, runs = len(study.results()), len(study.runs)
    console.print(
        f"{_count(len(study.recipe.methods), 'method')} x {_count(study.recipe.seeds, 'seed')}"
        + (f" x {_count(len(study.recipe.variants), 'variant')}" if study.recipe.variants else "")
        + f" in [bold]{escape(str(study.folder))}[/bold]"
        + (f", {done} of {runs} runs finished before" if done else "")
    )
    failed, elsewhere = 0, 0
    with lost_processes(console) as lost, display(console) as progress:
        whole = progress.add_task("all runs", total=runs, completed=done)
        lines: dict[Run, TaskID] = {}
        for event in run_all(study, jobs):
            run = event.run
            if isinstance(event, Finished):
                progress.advance(whole)
                if run in lines:
                    progress.remove_task(lines.pop(run))
                progress.console.print(_line(event), highlight=False)
                failed += event.error is not None
                elsewhere += event.error is None and event.result is None
            elif isinstance(event, Note):
                progress.console.print(f"{run}: {event.text}", highlight=False, markup=False, style="yellow")
            else:
                if run not in lines:
                    lines[run] = progress.add_task(escape(str(run)), total=study.recipe_of(run).train.epochs)
                score = f"{escape(str(run))}  validation {100 * event.epoch.validation_score:.1f} %"
                progress.update(lines[run], completed=event.epoch.epoch, description=score)
    if elsewhere:
        console.print(f"{elsewhere} runs are being trained by another process: the same command shows them later.")
    return not failed and not lost


def display(console: Console) -> Progress:
    """Return an empty display with time elapsed and left; it leaves no trace."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line(event: Finished) -> str:
    run = escape(str(event.run))
    if event.error is not None:
        return f"[red]{run} failed: {escape(event.error)}; the same command tries it again[/red]"
    if event.result is None:
        return f"{run} is being trained by another process"
    r = event.result
    mark = "" if r.status == "ok" else f"  [red]{r.status}[/red]"
    return f"{run}: test {100 * r.test_score:.2f} % (epoch {r.selected_epoch}, {r.seconds:.1f} s){mark}"


@contextlib.contextmanager
def lost_processes(console: Console) -> Iterator[list[str]]:
    """Turn the death of a process into one sentence; the list it yields then holds it."""
    lost: list[str] = []
    try:
        yield lost
    except BrokenProcessPool:
        lost.append("A process was killed, perhaps for want of memory: the same command goes on, --jobs 1 needs least.")
        console.print(f"[red]{lost[0]}[/red]")
