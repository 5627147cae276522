"""The engine of one machine: worker processes, and how they start and stop."""

import contextlib
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
from typing import Any, TypeVar

from .events import Event, JobEnded
from .pool import GRACE, Pool
from .processes import context, main_is_not_theirs
from .worker import Reported, begin, stop_at

__all__ = ["LocalPool"]

T = TypeVar("T")
R = TypeVar("R")


class LocalPool(Pool[T]):
    """Worker processes of this machine.

    Args:
        jobs: number of processes.
        threads: of each process. It must not depend on how many jobs are left.
        modules: what every process has imported when it starts, in addition to the engine.
    """

    def __init__(self, jobs: int, threads: int, *modules: str) -> None:
        processes = context(*modules)
        self._queue: Queue[Reported] = processes.Queue()
        self._executor = ProcessPoolExecutor(jobs, processes, initializer=_start, initargs=(threads, self._queue))
        self._futures: set[Future[Sequence[JobEnded[T]]]] = set()

    def submit(self, jobs: Callable[..., Sequence[JobEnded[T]]], *args: Any, names: Sequence[str] = ()) -> None:
        """See :meth:`Pool.submit`."""
        with main_is_not_theirs():
            self._futures.add(self._executor.submit(jobs, *args))

    def ask(self, job: Callable[..., R], each: Iterable[tuple[Any, ...]]) -> list[R]:
        """See :meth:`Pool.ask`."""
        with main_is_not_theirs():
            futures = [self._executor.submit(_at_once, job, *args) for args in each]
        return [future.result() for future in futures]

    def events(self, end: float = math.inf) -> Iterator[Event[T]]:
        """See :meth:`Pool.events`."""
        while self._futures and time.monotonic() < end:
            done, self._futures = wait(self._futures, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from self._reported()
            for future in done:
                yield from future.result()

    def _reported(self) -> Iterator[Reported]:
        with contextlib.suppress(Empty):
            while True:
                yield self._queue.get_nowait()

    def close(self) -> None:
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


def _start(threads: int, queue: "Queue[Reported]") -> None:
    """Prepare a process: leave Ctrl-C to the parent, stop at SIGTERM, and end when the parent has ended."""
    parent = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop_at(signal.SIGTERM)
    begin(queue, threads)

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _at_once(job: Callable[..., R], *args: Any) -> R:
    """Run a job that SIGTERM ends at once."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return job(*args)
    finally:
        signal.signal(signal.SIGTERM, before)
