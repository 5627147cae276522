"""A job that several processes of this machine do together, each on a device of its own.

They find in their environment what torchrun sets, and meet in a store of the process that starts them.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from ..errors import one_line
from ..run.observer import Stopped
from .events import Note
from .pool import TRIES
from .processes import context, main_is_not_theirs
from .worker import Reported, begin, send, stop_at, stopping

__all__ = ["crew"]

#: Seconds between two looks at the processes, and seconds that those have to end whose crew has lost one: they cannot
#: save without it.
LOOK, GRACE = 0.2, 2.0

T = TypeVar("T")


class _Item(NamedTuple, Generic[T]):
    """What the first process's part of the job has yielded."""

    value: T


def crew(name: str, size: int, job: Callable[..., Iterable[T]], *args: Any) -> Generator[T, None, None]:
    """Let processes do a job together, and yield what the first one yields.

    A worker process calls it. What they report goes on to the process that has submitted the job. They are told to
    stop when this process is, and nothing more is yielded then. Where one is killed, all start again, a few times: the
    job goes on where it has saved, and may yield again what it has yielded. Close the generator, and they are ended.

    Args:
        name: of the job.
        size: number of processes.
        job: a function of a module, for each process imports it. :class:`~bisam_lab.run.observer.Stopped` ends it.
        args: its arguments, which can be pickled.

    Raises:
        ChildProcessError: one was killed each time, or failed.
    """
    failed = ""
    for number in range(1, TRIES + 1):
        if stopping():
            return
        try:
            yield from _once(size, job, args)
            return
        except ProcessExitedException as error:
            signalled = error.signal_name or f"exit code {error.exit_code}"
            memory = ", perhaps because memory ran out" if signalled == "SIGKILL" else ""
            failed = f"process {error.error_index} of the run was killed ({signalled}{memory})"
        except ProcessRaisedException as error:
            text = one_line(str(error).strip().splitlines()[-1])
            raise ChildProcessError(f"process {error.error_index} of the run failed ({text})") from None
        if number < TRIES and not stopping():
            send(Note(name, f"{failed}; it is started again"))
    if not stopping():
        raise ChildProcessError(f"{failed}, {TRIES} times")


def _once(size: int, job: Callable[..., Iterable[T]], args: tuple[Any, ...]) -> Iterator[T]:
    """Start the processes, and yield what comes until they have ended.

    Raises:
        ProcessExitedException: one was killed; the others have ended, too.
        ProcessRaisedException: one failed; the others have ended, too.
    """
    processes = context()
    queue: Queue[Reported | _Item[T]] = processes.Queue()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    place = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "GROUP_RANK": "0"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    given = (place, max(1, torch.get_num_threads() // size), queue, job, args)
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # it says what is said above
    with main_is_not_theirs():
        members = start_processes(_member, given, nprocs=size, join=False, start_method=processes.get_start_method())
    assert members is not None  # for the type checker
    try:
        over = False
        while not over:
            over = members.join(LOOK, GRACE)
            for event in _taken(queue):
                if isinstance(event, _Item):
                    yield event.value
                else:
                    send(event)
            for process in members.processes if stopping() else ():
                process.terminate()  # again and again: one that is still starting does not hear it
    finally:
        for process in members.processes:
            process.kill()


def _taken(queue: "Queue[Reported | _Item[T]]") -> Iterator[Reported | _Item[T]]:
    with contextlib.suppress(Empty):
        while True:
            yield queue.get_nowait()


def _member(
    rank: int,
    place: dict[str, str],
    threads: int,
    queue: "Queue[Reported | _Item[Any]]",
    job: Callable[..., Iterable[Any]],
    args: tuple[Any, ...],
) -> None:
    """Do the job in one of the processes; the first one speaks."""
    parent = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop_at(signal.SIGTERM, signal.SIGUSR2)  # the second is Slurm's, before a job's time is over
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    begin(queue if rank == 0 else _Nobody(), threads)

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(Stopped):
        for value in job(*args):
            if rank == 0:
                queue.put(_Item(value))


class _Nobody:
    """Where the others report: they would say what the first one says."""

    def put(self, event: Reported) -> None:
        """Say nothing."""
