"""An observer follows a run, and can stop it."""

from .epoch import Epoch
from .signatures import Signature

__all__ = ["Observer", "Stopped"]


class Stopped(Exception):  # noqa: N818 not an error
    """The observer stopped the run, and the state is saved."""


class Observer:
    """Follows a run. This base class reports nothing, and does not stop the run.

    Attributes:
        stop: set it to stop the run, for instance in a signal handler. The run saves its state after the current step
            or validation batch, and raises :class:`Stopped`.
    """

    stop: bool = False

    def stopping(self) -> bool:
        """Return whether the run must stop: the value of :attr:`stop`."""
        return self.stop

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step, with the steps done and all steps of the epoch."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch. An exception from here ends the run."""

    def signature(self, shown: Signature, epoch: int) -> None:
        """Called once for each failure signature that the run shows, after the epoch that shows it."""
        self.note(f"epoch {epoch}: {shown.advice}")

    def about_data(self, text: str) -> None:
        """Called with what is true of the data, at the start. A study says it once, and not for each run."""
        self.note(text)

    def note(self, text: str) -> None:
        """Called with a message for the user, for instance that a checkpoint was damaged."""
