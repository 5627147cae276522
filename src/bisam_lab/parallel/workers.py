"""Worker processes: how they start, run jobs, report events, and stop."""

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from queue import Empty
from types import FrameType
from typing import Any, Generic, TypeVar

import torch

from ..run.observer import Observer
from ..run.signatures import Signature
from .events import EpochDone, Event, JobEnded, Note, Shows
from .processes import context, main_is_not_theirs

__all__ = ["Pool", "Reporter", "send", "stopping"]

#: Seconds that the processes have to save their state when they are told to stop.
GRACE = 60.0

T = TypeVar("T")
R = TypeVar("R")

_stopping = False
_queue: "Queue[EpochDone | Note | Shows]"


class Pool(Generic[T]):
    """Worker processes. When the ``with`` block ends, for whatever reason, they save their state and stop.

    Args:
        jobs: number of processes.
        threads: of each process. The number of threads changes how sums round, so it must not depend on how many jobs
            are left.
        modules: what every process has imported when it starts, in addition to the engine.
    """

    def __init__(self, jobs: int, threads: int, *modules: str) -> None:
        processes = context(*modules)
        self._queue: Queue[EpochDone | Note | Shows] = processes.Queue()
        self._executor = ProcessPoolExecutor(jobs, processes, initializer=_start, initargs=(threads, self._queue))
        self._futures: set[Future[Sequence[JobEnded[T]]]] = set()

    def submit(self, jobs: Callable[..., Sequence[JobEnded[T]]], *args: Any) -> None:
        """Run ``jobs(*args)`` in a process. It returns how each of its jobs ended: of one, of several, or of none."""
        with main_is_not_theirs():
            self._futures.add(self._executor.submit(jobs, *args))

    def ask(self, job: Callable[..., R], each: Iterable[tuple[Any, ...]]) -> list[R]:
        """Run ``job(*args)`` in the processes for each ``args``, and wait for what they return.

        Such a job has nothing to save. It is ended at once where the processes have to stop.

        Raises:
            Exception: the first one that a job raised.
            BrokenProcessPool: a process was killed, perhaps because memory ran out.
        """
        with main_is_not_theirs():
            futures = [self._executor.submit(_at_once, job, *args) for args in each]
        return [future.result() for future in futures]

    def events(self, end: float = math.inf) -> Iterator[Event[T]]:
        """Yield what the jobs report until all have ended or the time is over.

        Args:
            end: time of ``time.monotonic`` at which to return.

        Raises:
            BrokenProcessPool: a process was killed, perhaps because memory ran out.
        """
        while self._futures and time.monotonic() < end:
            done, self._futures = wait(self._futures, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from self._reported()
            for future in done:
                yield from future.result()

    def _reported(self) -> Iterator[EpochDone | Note | Shows]:
        with contextlib.suppress(Empty):
            while True:
                yield self._queue.get_nowait()

    def __enter__(self) -> "Pool[T]":
        return self

    def __exit__(self, *error: object) -> None:
        """Tell every process to save and stop, and wait. A process that is still starting is told again."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + GRACE
        while (alive := [process for process in processes if process.is_alive()]) and time.monotonic() < end:
            for process in alive:
                process.terminate()
            alive[0].join(0.5)
        for process in alive:
            process.kill()


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


def send(event: EpochDone | Note | Shows) -> None:
    """Send an event from a worker process to its parent."""
    _queue.put(event)


def stopping() -> bool:
    """Return whether this process was told to save its state and stop."""
    return _stopping


def _start(threads: int, queue: "Queue[EpochDone | Note | Shows]") -> None:
    """Prepare a process: set its threads, leave Ctrl-C to the parent, and end when the parent has ended."""
    global _queue
    _queue, parent = queue, multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    threading.excepthook = _thread_failed

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk: the thread that writes for TensorBoard raises the error again in its run."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def _at_once(job: Callable[..., R], *args: Any) -> R:
    """Run a job that SIGTERM ends at once."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return job(*args)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    global _stopping
    _stopping = True
