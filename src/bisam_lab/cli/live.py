"""Jobs while they run: a bar for all of them, a bar for each running one, and a line for each that has ended."""

from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from rich.console import Console, RenderableType
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

from ..parallel.events import EpochDone, Event, JobEnded, Note, PartDone, Shows
from ..run.result import RunResult
from ..run.signatures import SIGNATURES

__all__ = ["Live", "display", "ended_line", "percent"]

T = TypeVar("T")


class Live:
    """A live display. It disappears when its ``with`` block ends; the lines that it printed stay.

    If a process is killed, the block ends with one sentence instead of an exception.

    Args:
        console: to write to.
        title: of the bar for all jobs.
        total: number of jobs.
        done: number of jobs that ended before.

    Attributes:
        failed: whether a job failed or a process was killed.
    """

    def __init__(self, console: Console, title: str, total: int, done: int) -> None:
        self.console, self.failed = console, False
        self._bars = display(console)
        self._all = self._bars.add_task(title, total=total, completed=done)
        self._running: dict[str, TaskID] = {}
        self._ended: set[str] = set()
        self._explained: set[str] = set()
        self._shown: dict[str, list[str]] = {}

    def ended(self, events: Iterable[Event[T]]) -> Iterator[JobEnded[T]]:
        """Show progress, messages and errors as they come, and yield each job that has ended."""
        for event in events:
            if isinstance(event, EpochDone | PartDone):
                self._advance(event)
            elif isinstance(event, Shows):
                self._show(event)
            elif isinstance(event, Note):
                self.print(f"{event.job}: {event.text}", style="yellow")
            else:
                self._end(event)
                yield event

    def print(self, text: str, style: str | None = None) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def set_above(self, view: RenderableType) -> None:
        """Show something above the bars, in the place of what was there."""
        self._bars.above = view
        self._bars.refresh()

    def set_done(self, done: int) -> None:
        """Show how many jobs have ended."""
        self._bars.update(self._all, completed=done)

    def _show(self, event: Shows) -> None:
        """Print a failure signature: with its remedy the first time, by its name after that."""
        words = event.signature if event.signature in self._explained else SIGNATURES[event.signature].advice
        self._explained.add(event.signature)
        self._shown.setdefault(event.job, []).append(event.signature)
        self.print(f"{event.job}, epoch {event.epoch}: {words}", style="yellow")

    def _advance(self, event: EpochDone | PartDone) -> None:
        if event.job in self._ended:  # the processes' messages may arrive in another order
            return
        if event.job not in self._running:
            self._running[event.job] = self._bars.add_task("", total=event.total)
        signs = "".join(f"  [yellow]{name}[/yellow]" for name in self._shown.get(event.job, ()))
        score = f"  validation {percent(event.score)}" if isinstance(event, EpochDone) else ""
        text = f"{escape(event.job)}{score}{signs}"
        self._bars.update(self._running[event.job], completed=event.done, description=text)

    def _end(self, event: JobEnded[T]) -> None:
        self._ended.add(event.job)
        if event.job in self._running:
            self._bars.remove_task(self._running.pop(event.job))
        self.failed |= event.error is not None

    def __enter__(self) -> "Live":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._bars.stop()
        if not isinstance(error, BrokenProcessPool):
            return False
        self.failed = True
        self.console.print(
            "[red]A process was killed, perhaps because memory ran out. The same command continues; --jobs 1 needs the "
            "least memory.[/red]"
        )
        return True


class _Bars(Progress):
    """Bars, and what stands above them."""

    above: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.above is not None:
            yield self.above
        yield from super().get_renderables()


def display(console: Console) -> _Bars:
    """Return bars with the time elapsed and the time left; they disappear at the end."""
    return _Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def percent(score: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * score:.2f} %"


def ended_line(ended: JobEnded[RunResult]) -> tuple[str, str | None]:
    """Return a run's line, and its style."""
    if ended.error is not None:
        return f"{ended.job} failed: {ended.error}; the same command tries it again", "red"
    if ended.result is None:
        return f"{ended.job} is being trained by another process", None
    r = ended.result
    status, style = ("", None) if r.status == "ok" else (f"  {r.status}", "red")
    if signs := [one.name for one in r.signatures]:
        status, style = f"{status}  shows {', '.join(signs)}", style or "yellow"
    return f"{ended.job}: test {100 * r.test_score:.2f} % (epoch {r.selected_epoch}, {r.seconds:.1f} s){status}", style
