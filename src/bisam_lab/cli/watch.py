"""One run while it trains: a bar on a terminal, a line an epoch elsewhere; and the signals that end it."""

import os
import signal
import time
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..run.observer import Observer, Stopped
from ..run.result import Epoch
from .signals import Terminated

__all__ = ["Watch"]


class Watch(Observer):
    """Shows a run, and turns Ctrl-C and SIGTERM into a stop after the present step; a second one stops at once.

    Args:
        epochs: of the whole run.
        console: to write to.
        patient: whether this is one of several processes: they stop together, so a second signal, which a launcher and
            a scheduler may both send, changes nothing, and they stop when their launcher is gone.
    """

    def __init__(self, epochs: int, console: Console, *, patient: bool = False) -> None:
        self.epochs, self.console = epochs, console
        self._launcher = os.getppid() if patient else None
        self._received: int | None = None
        self._began: tuple[float, float] | None = None
        self._display = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._display.add_task("starting", total=None)
        self._last = ""

    def stopping(self) -> bool:
        """Return whether a signal came, or the launcher of this process is gone."""
        return self.stop or self._launcher not in (None, os.getppid())

    def step(self, epoch: int, done: int, total: int) -> None:
        """Advance the bar."""
        share = (epoch - 1 + done / total) / self.epochs
        self._began = self._began or (time.perf_counter(), share)
        title = f"epoch {epoch} of {self.epochs}{self._last}"
        self._display.update(self._task, total=1.0, completed=share, description=title)

    def epoch(self, epoch: Epoch) -> None:
        """Show what the epoch came to."""
        self._last = f"  loss {epoch.train_loss:.4f}  validation {100 * epoch.validation_score:.2f} %"
        if not self.console.is_terminal:
            self.console.print(f"epoch {epoch.epoch} of {self.epochs}{self._last}{self._left(epoch)}", highlight=False)

    def note(self, text: str) -> None:
        """Show a warning."""
        self._display.console.print(text, style="yellow", highlight=False, markup=False)

    def _left(self, epoch: Epoch) -> str:
        began, share = self._began or (0.0, 1.0)
        done = epoch.epoch / self.epochs
        if done == 1 or done <= share:  # at the end, or resumed after its epoch's last step but one
            return ""
        seconds = (time.perf_counter() - began) / (done - share) * (1 - done)
        return f"  {seconds:.0f} s left" if seconds < 120 else f"  {seconds / 60:.0f} min left"

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and self._launcher is None:
            raise self._exception()
        self._received, self.stop = number, True

    def _exception(self) -> KeyboardInterrupt:
        return Terminated() if self._received == signal.SIGTERM else KeyboardInterrupt()

    def __enter__(self) -> "Watch":
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._display.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, Stopped):
            raise self._exception() from None
