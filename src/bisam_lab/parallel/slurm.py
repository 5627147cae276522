"""The engine ``slurm``: each job is a job of a Slurm cluster, submitted through submitit.

A job does not need the process that has submitted it: its events and its end are files in the study's folder. So that
process may be killed, and the same command finds the jobs that are queued or running. A job that Slurm preempts, or
whose time is over, saves its state and is queued again.
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from ..errors import one_line
from ..recipe import Recipe
from .engine import Engine
from .events import EpochDone, Event, JobEnded, Note, PartDone, Shows
from .local import LocalPool
from .pool import GRACE, TRIES, Pool
from .submitting import Cluster, cluster_of, is_ending
from .worker import Reported, begin, stop

__all__ = ["SlurmPool"]

T = TypeVar("T")
R = TypeVar("R")

#: Where the jobs' files lie, in the folder of the study.
FOLDER = ".slurm"
#: Seconds between two looks at the jobs' files.
LOOK = 0.5
_KINDS = {kind.__name__: kind for kind in (EpochDone, PartDone, Note, Shows)}


@dataclass
class _Task:
    """A job of the cluster.

    Attributes:
        key: names its files.
        names: of what it runs, where they are known.
        call: what it runs.
        tries: how often it has been submitted.
        job: as submitit knows it; None before it is submitted.
        read: bytes of its events that have been read.
        missed: looks at the queue in a row that did not find it.
    """

    key: str
    names: Sequence[str]
    call: "_Call"
    tries: int = 0
    job: Any = None
    read: int = 0
    missed: int = 0


class SlurmPool(Pool[T]):
    """Jobs of a Slurm cluster; or processes of this machine that submitit starts, where ``cluster=local`` is said.

    Args:
        engine: what each job gets.
        recipe: of the jobs.
        folder: of the study, on a file system that all nodes share.

    Raises:
        RecipeError: submitit is not installed, this machine belongs to no Slurm cluster, or a setting is none.
    """

    def __init__(self, engine: Engine, recipe: Recipe, folder: Path) -> None:
        self._folder = folder.absolute() / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._cluster: Cluster = cluster_of(engine, recipe, self._folder)
        self._threads = engine.cpus_for(recipe)
        self._waiting: list[_Task] = []
        self._running: list[_Task] = []
        self._failures = False
        self._notes: list[Note] = [Note("slurm", text) for text in self._cluster.notes]

    def submit(self, jobs: Callable[..., Sequence[JobEnded[T]]], *args: Any, names: Sequence[str] = ()) -> None:
        """See :meth:`Pool.submit`. A job of these names that is queued or running is not submitted again."""
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] if names else secrets.token_hex(8)
        task = _Task(key, names, _Call(self._path(key), os.getcwd(), self._threads, self._cluster.requeue, jobs, args))
        if names and (found := self._cluster.found(_read(self._path(key).with_suffix(".json")).get("job"))):
            task.job, task.tries = found, 1
            self._running.append(task)
            self._notes.append(Note(names[0], f"its job {found.job_id} is queued or running"))
        else:
            self._waiting.append(task)

    def _path(self, key: str) -> Path:
        return self._folder / key

    def _fill(self) -> None:
        """Submit what there is room for, together."""
        room = self._cluster.room(len(self._running))
        fresh, self._waiting = self._waiting[:room], self._waiting[room:]
        if not fresh:
            return
        for task in fresh:
            for suffix in (".events", ".stop"):
                self._path(task.key).with_suffix(suffix).unlink(missing_ok=True)
        for task, job in zip(fresh, self._cluster.submit([task.call for task in fresh]), strict=True):
            task.job, task.tries, task.read, task.missed = job, task.tries + 1, 0, 0
            stored = {"job": job.job_id, "names": list(task.names)}
            self._path(task.key).with_suffix(".json").write_text(json.dumps(stored))
        self._running += fresh

    def ask(self, job: Callable[..., R], each: Iterable[tuple[Any, ...]]) -> list[R]:
        """See :meth:`Pool.ask`. A process of this machine runs it: a queue would take longer than the answer."""
        with LocalPool[Any](1, self._threads) as here:
            return here.ask(job, each)

    def events(self, end: float = math.inf) -> Iterator[Event[T]]:
        """See :meth:`Pool.events`."""
        while (self._waiting or self._running) and time.monotonic() < end:
            self._fill()
            notes, self._notes = self._notes, []
            yield from notes
            for task, lost in self._looked():
                yield from self._reported(task)
                if task not in self._running:
                    yield from self._lost(task) if lost else self._ended(task)
            time.sleep(LOOK)

    def _looked(self) -> list[tuple[_Task, bool]]:
        """Return the running tasks, and whether each has died. Those that have ended run no more."""
        there, seen = self._cluster.alive([task.job for task in self._running]), []
        for task in list(self._running):
            task.missed = 0 if there is None or task.job.job_id in there else task.missed + (there is not None)
            ended = task.job.paths.result_pickle.exists()
            if ended or task.missed > 1:
                self._running.remove(task)
            seen.append((task, not ended))
        return seen

    def _reported(self, task: _Task) -> Iterator[Reported]:
        """Yield what a task has reported since the last look."""
        path = self._path(task.key).with_suffix(".events")
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(task.read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                task.read += len(line)
                kind, values = json.loads(line)
                yield _KINDS[kind](**values)

    def _ended(self, task: _Task) -> Iterator[JobEnded[T]]:
        try:
            ended: list[JobEnded[T]] = task.job.result()
        except Exception as error:  # noqa: BLE001 whatever stopped it, pickled
            yield from self._failed(task, one_line(str(error).strip().splitlines()[-1]))
            return
        self._forget(task, logs=any(one.error is not None for one in ended))
        yield from ended

    def _lost(self, task: _Task) -> Iterator[Event[T]]:
        """Submit a task again whose job has died, a few times; not one that a user has cancelled."""
        if self._cluster.is_cancelled(task.job):
            yield from self._failed(task, "its job was cancelled")
            return
        if task.tries < TRIES:
            self._waiting.append(task)
            self._clear(task, logs=False)
            yield Note(", ".join(task.names[:1]) or "job", f"job {task.job.job_id} has died, and is submitted again")
            return
        yield from self._failed(task, f"its job died, {TRIES} times")

    def _failed(self, task: _Task, reason: str) -> Iterator[JobEnded[T]]:
        """Say that a task has failed, and where its messages are."""
        log = task.job.paths.stderr
        self._forget(task, logs=True)
        if not task.names:
            raise BrokenProcessPool(f"{reason}; see {log}")
        for name in task.names:
            yield JobEnded(name, error=f"{reason}; see {log}")

    def _forget(self, task: _Task, logs: bool) -> None:
        """Delete a task's files; of one that failed, keep what it has written."""
        self._failures |= logs
        self._clear(task, logs)
        for suffix in (".json", ".events", ".stop"):
            self._path(task.key).with_suffix(suffix).unlink(missing_ok=True)

    def _clear(self, task: _Task, logs: bool) -> None:
        """Delete what submitit has written for a job; its messages stay where ``logs``."""
        paths = task.job.paths
        for path in (paths.submitted_pickle, paths.result_pickle, *(() if logs else (paths.stdout, paths.stderr))):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Tell the jobs to save and stop, and wait; those that have not begun leave the queue."""
        for task in self._running:
            self._path(task.key).with_suffix(".stop").touch()
        jobs = {task.job.job_id: task for task in self._running}
        self._cluster.cancel([task.job for task in self._running], waiting_alone=True)
        end = time.monotonic() + GRACE
        while self._running and time.monotonic() < end:
            self._looked()
            time.sleep(0.2)
        self._cluster.cancel([task.job for task in self._running], waiting_alone=False)
        for task in jobs.values():
            self._forget(task, logs=False)
        if not self._failures and not any(self._folder.glob("*.json")):  # no other command has jobs here
            shutil.rmtree(self._folder, ignore_errors=True)


class _Events:
    """Appends events to a file, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, event: Reported) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([type(event).__name__, asdict(event)]) + "\n")


@dataclass
class _Call:
    """What a job of the cluster does, wherever and how often it is started.

    Attributes:
        path: of its files, without their suffix.
        folder: from which relative paths lead.
        threads: that it computes with.
        requeue: whether it is queued again when the cluster stops it.
        jobs: what it runs.
        args: its arguments.
    """

    path: Path
    folder: str
    threads: int
    requeue: bool
    jobs: Callable[..., Sequence[JobEnded[Any]]]
    args: tuple[Any, ...]
    _told: bool = field(default=False, repr=False)

    def __call__(self) -> list[JobEnded[Any]]:
        """Run the jobs; where the cluster stops them, save and leave the queue's place to the next start."""
        warned = _preemption()
        theirs = signal.getsignal(warned)
        os.chdir(self.folder)
        begin(_Events(self.path.with_suffix(".events")), self.threads)
        for number in (warned, signal.SIGTERM):
            signal.signal(number, self._stop)
        threading.Thread(target=self._watch, daemon=True).start()
        ended = list(self.jobs(*self.args))
        if self._told and is_ending():
            raise SystemExit(1)  # without a result: whether the job runs again is Slurm's decision, and is made
        if self._told and self.requeue:
            self._told = False  # it is saved with this object
            signal.signal(warned, theirs)
            signal.raise_signal(warned)  # submitit calls `checkpoint`, asks for another start, and leaves
        return ended

    def checkpoint(self) -> Any:
        """Return what the next start runs."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        stop()

    def _watch(self) -> None:
        """Stop where the process that has submitted the job says so."""
        while not self.path.with_suffix(".stop").exists():
            time.sleep(LOOK)
        stop()


def _preemption() -> signal.Signals:
    """Return the signal with which submitit lets Slurm announce the end of a job."""
    from submitit.core.job_environment import JobEnvironment

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
