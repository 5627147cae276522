"""Processes that train: how they start, hear that they must stop, and end."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from queue import Empty
from types import FrameType
from typing import TypeVar

import torch

__all__ = ["drain", "end", "start", "stopping"]

T = TypeVar("T")

#: Seconds that processes have to save what they do when they are told to stop.
GRACE = 60.0

_stopping = False


def start(threads: int) -> None:
    """Set up a process: its share of the cores, Ctrl-C left to the parent, and an end when the parent is gone."""
    parent = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stopping() -> bool:
    """Return whether this process was told to save and end."""
    return _stopping


def end(pool: ProcessPoolExecutor) -> None:
    """Tell every process to save and end, and wait for them; one that is only starting has to be told again."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + GRACE
    while (alive := [process for process in processes if process.is_alive()]) and time.monotonic() < end:
        for process in alive:
            process.terminate()
        alive[0].join(0.5)
    for process in alive:
        process.kill()


def drain(events: "Queue[T]") -> Iterator[T]:
    """Yield what lies in the queue."""
    while True:
        try:
            yield events.get_nowait()
        except Empty:
            return


def _stop(number: int, frame: FrameType | None) -> None:
    global _stopping
    _stopping = True
