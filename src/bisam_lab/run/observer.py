"""Who watches a run, and may stop it."""

from .result import Epoch

__all__ = ["Observer", "Stopped"]


class Stopped(Exception):  # noqa: N818 it is no error
    """A run that was asked to stop, and whose state has been saved."""


class Observer:
    """Watches a run; this one says nothing and never stops it.

    Attributes:
        stop: set it, from a signal handler say, and the run saves its state after the present step or batch of
            validation, and raises :class:`Stopped`.
    """

    stop: bool = False

    def stopping(self) -> bool:
        """Return whether the run is to stop: what :attr:`stop` says."""
        return self.stop

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step: ``done`` of the epoch's ``total``."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch; whatever it raises ends the run."""

    def note(self, text: str) -> None:
        """Called with what the user should know, such as that a checkpoint was damaged."""
