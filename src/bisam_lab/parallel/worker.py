"""The side of the workers: how a process that runs jobs reports their events, and learns that it has to stop."""

import logging
import signal
import threading
from types import FrameType
from typing import Protocol

import torch

from ..run.observer import Observer
from ..run.signatures import Signature
from .events import EpochDone, Note, PartDone, Shows

__all__ = ["Channel", "Reported", "Reporter", "begin", "send", "stop", "stop_at", "stopping"]

#: What a job reports before its end.
Reported = EpochDone | PartDone | Note | Shows


class Channel(Protocol):
    """Carries events to the process that has submitted the jobs."""

    def put(self, event: Reported) -> None:
        """Send an event."""


_channel: Channel
_stopping = False


def begin(channel: Channel, threads: int) -> None:
    """Prepare this process to run jobs. An engine calls it once, or before each job.

    Args:
        channel: where the events go.
        threads: that a job computes with. Their number changes how sums round.
    """
    global _channel, _stopping
    _channel, _stopping = channel, False
    torch.set_num_threads(threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    threading.excepthook = _thread_failed


def stop_at(*signals: signal.Signals) -> None:
    """Let these signals tell this process to save and stop."""
    for number in signals:
        signal.signal(number, _stop)


class Reporter(Observer):
    """Observes a job in a worker process: sends its notes to the parent, and stops it when the process has to stop."""

    def __init__(self, job: str) -> None:
        self.job = job

    def stopping(self) -> bool:
        """Return whether this process has to stop."""
        return stopping()

    def about_data(self, text: str) -> None:
        """Say nothing: the parent has said it before the jobs."""

    def note(self, text: str) -> None:
        """Send a message for the user."""
        send(Note(self.job, text))

    def signature(self, shown: Signature, epoch: int) -> None:
        """Send a failure signature."""
        send(Shows(self.job, shown.name, epoch))


def send(event: Reported) -> None:
    """Send an event to the process that has submitted the job."""
    _channel.put(event)


def stopping() -> bool:
    """Return whether this process was told to save its state and stop."""
    return _stopping


def stop() -> None:
    """Tell this process to save its state and stop."""
    global _stopping
    _stopping = True


def _stop(number: int, frame: FrameType | None) -> None:
    stop()


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk: the thread that writes for TensorBoard raises the error again in its run."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)
