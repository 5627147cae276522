"""One comparison from start to end: run what is missing under a live display, then say what came out."""

import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..recipe import Recipe
from ..statistics import compare, verdict
from ..study import Finished, Run, Study, default_jobs
from ..summary import draw, markdown, table

__all__ = ["run_comparison"]

console = Console()


def run_comparison(recipe: Recipe, baseline: str, *, out: Path, jobs: int | None, data_dir: Path | None) -> bool:
    """Run a study and print its table and verdict; return whether every run succeeded.

    Raises:
        RecipeError: data that are missing, or a folder that holds something else.
    """
    study = Study(out, recipe, data_dir)
    succeeded = _run(study, jobs or default_jobs(recipe))
    _summarise(study, baseline)
    return succeeded


def _run(study: Study, jobs: int) -> bool:
    """Run what is missing under a live display; return whether no run failed."""
    done = len(study.results())
    console.print(
        f"{len(study.recipe.methods)} methods x {study.recipe.seeds} seeds in [bold]{study.folder}[/bold]"
        + (f", {done} of {len(study.runs)} runs finished before" if done else "")
    )
    succeeded = True
    with _terminating(), _lost_processes() as lost, _display() as progress:
        whole = progress.add_task("all runs", total=len(study.runs), completed=done)
        lines: dict[Run, TaskID] = {}
        for event in study.run(jobs):
            run = event.run
            if isinstance(event, Finished):
                progress.advance(whole)
                if run in lines:
                    progress.remove_task(lines.pop(run))
                progress.console.print(_line(event), highlight=False)
                succeeded &= event.result is not None
            else:
                if run not in lines:
                    lines[run] = progress.add_task(str(run), total=study.recipe.train.epochs)
                accuracy = f"{run}  validation {100 * event.epoch.validation_score:.1f} %"
                progress.update(lines[run], completed=event.epoch.epoch, description=accuracy)
    return succeeded and not lost


def _line(event: Finished) -> str:
    if event.result is None:
        return f"[red]{event.run} failed: {event.error}; the same command tries it again[/red]"
    r = event.result
    mark = "" if r.status == "ok" else f"  [red]{r.status}[/red]"
    return f"{event.run}: test {100 * r.test_score:.2f} % (epoch {r.selected_epoch}, {r.seconds:.1f} s){mark}"


def _summarise(study: Study, baseline: str) -> None:
    results = list(study.write_results().values())
    if not any(result.method == baseline for result in results):
        console.print(f"No run of {baseline} is finished, so there is nothing to compare with.")
        return
    rows = compare(results, baseline)
    sentence = verdict(rows, baseline)
    (study.folder / "table.md").write_text(markdown(rows, baseline) + "\n" + sentence + "\n")
    draw(results, baseline, study.folder / "figure.png", _title(study.recipe))
    view = table(rows, baseline)
    whole = Measurement.get(console, console.options.update(max_width=200), view).maximum
    Console(width=max(console.width, whole)).print(view, crop=False)  # rather a long line than a column lost
    console.print(sentence, highlight=False)
    console.print(f"Table, figure, CSV, JSON lines and TensorBoard logs: [bold]{study.folder}[/bold]")


def _title(recipe: Recipe) -> str:
    noise = f", {100 * recipe.data.label_noise:g} % of the training labels wrong" if recipe.data.label_noise else ""
    return f"{recipe.data.name}{noise}, rho = {recipe.sharpness.rho:g}, {recipe.seeds} seeds"


def _display() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextlib.contextmanager
def _lost_processes() -> Iterator[list[str]]:
    """Turn the death of a process into one sentence; the list it yields then holds it."""
    lost: list[str] = []
    try:
        yield lost
    except BrokenProcessPool:
        lost.append("A process was killed, perhaps for want of memory: the same command goes on, --jobs 1 needs least.")
        console.print(f"[red]{lost[0]}[/red]")


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """Let SIGTERM end the study as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
