"""Processes that train: how they start, tell what happens, hear that they must stop, and end."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from queue import Empty
from types import FrameType
from typing import Any

import torch

from ..parallel.processes import context

__all__ = ["pool", "stopping", "tell"]

#: Seconds that processes have to save what they do when they are told to stop.
GRACE = 60.0

_stopping = False
_events: "Queue[Any]"


@contextlib.contextmanager
def pool(jobs: int, threads: int, *modules: str) -> Iterator[tuple[ProcessPoolExecutor, Callable[[], Iterator[Any]]]]:
    """Yield so many processes, and a function that yields what they have told.

    Leaving it, however that happens, lets them save and end.

    Args:
        jobs: how many processes.
        threads: of each; another number rounds otherwise, so it must not depend on how much is left to do.
        modules: what they find imported, beside the engine.
    """
    processes = context(*modules)
    events: Queue[Any] = processes.Queue()
    executor = ProcessPoolExecutor(jobs, processes, initializer=_start, initargs=(threads, events))
    try:
        yield executor, lambda: _drain(events)
    finally:
        _end(executor)


def tell(event: object) -> None:
    """Tell the parent, in one of the processes."""
    _events.put(event)


def stopping() -> bool:
    """Return whether this process was told to save and end."""
    return _stopping


def _start(threads: int, events: "Queue[Any]") -> None:
    """Set up a process: its threads, Ctrl-C left to the parent, and an end when the parent is gone."""
    global _events
    _events, parent = events, multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end(executor: ProcessPoolExecutor) -> None:
    """Tell every process to save and end, and wait for them; one that is only starting has to be told again."""
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + GRACE
    while (alive := [process for process in processes if process.is_alive()]) and time.monotonic() < end:
        for process in alive:
            process.terminate()
        alive[0].join(0.5)
    for process in alive:
        process.kill()


def _drain(events: "Queue[Any]") -> Iterator[Any]:
    """Yield what lies in the queue."""
    while True:
        try:
            yield events.get_nowait()
        except Empty:
            return


def _stop(number: int, frame: FrameType | None) -> None:
    global _stopping
    _stopping = True
