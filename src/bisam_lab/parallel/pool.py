"""What every engine offers: jobs are submitted, report events while they run, and save and stop at the end."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from .events import Event, JobEnded, Note

__all__ = ["GRACE", "TRIES", "Pool"]

#: Seconds that the jobs have to save their state when they are told to stop.
GRACE = 60.0
#: How often a cluster starts a job whose process or node dies. A job that kills its process must not run for ever.
TRIES = 3

T = TypeVar("T")
R = TypeVar("R")


class Pool(ABC, Generic[T]):
    """Runs jobs. When the ``with`` block ends, for whatever reason, they save their state and stop."""

    def notes(self) -> list[Note]:
        """Return what a user is to know before the first job, such as that it will have to wait."""
        return []

    @abstractmethod
    def submit(self, jobs: Callable[..., Sequence[JobEnded[T]]], *args: Any, names: Sequence[str] = ()) -> None:
        """Run ``jobs(*args)`` in a process. It returns how each of its jobs ended: of one, of several, or of none.

        Args:
            jobs: a function of a module, for the process imports it.
            args: its arguments, which can be pickled.
            names: of the jobs, where they are known.
        """

    @abstractmethod
    def ask(self, job: Callable[..., R], each: Iterable[tuple[Any, ...]]) -> list[R]:
        """Run ``job(*args)`` for each ``args``, and wait for what they return.

        Such a job has nothing to save. It is ended at once where the processes have to stop.

        Raises:
            Exception: the first one that a job raised.
            BrokenProcessPool: a process was killed, perhaps because memory ran out.
        """

    @abstractmethod
    def events(self, end: float = math.inf) -> Iterator[Event[T]]:
        """Yield what the jobs report until all have ended or the time is over.

        Args:
            end: time of ``time.monotonic`` at which to return.

        Raises:
            BrokenProcessPool: a process was killed, perhaps because memory ran out.
        """

    @abstractmethod
    def close(self) -> None:
        """Tell every job to save and stop, and wait."""

    def __enter__(self) -> "Pool[T]":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
