"""What a job reports while it runs, and how it ended.

A job is a run of a study, a trial of a tuning, or an audit. Its name is what a user reads: ``sam seed 3``, ``trial 7``.
"""

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

__all__ = ["EpochDone", "Event", "JobEnded", "Note", "PartDone", "Shows"]

T = TypeVar("T")


@dataclass(frozen=True)
class EpochDone:
    """A job has finished an epoch.

    Attributes:
        job: its name.
        done: epochs that it has finished.
        total: epochs that it has to train.
        score: on validation, as a fraction.
    """

    job: str
    done: int
    total: int
    score: float


@dataclass(frozen=True)
class PartDone:
    """A job that trains nothing has done a part of its work.

    Attributes:
        job: its name.
        done: parts that it has done.
        total: parts that it has to do.
    """

    job: str
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """A job has a message for the user, such as that a checkpoint was damaged."""

    job: str
    text: str


@dataclass(frozen=True)
class Shows:
    """A job shows a failure signature.

    Attributes:
        job: its name.
        signature: which, a key of ``SIGNATURES``.
        epoch: after which it shows it.
    """

    job: str
    signature: str
    epoch: int


@dataclass(frozen=True)
class JobEnded(Generic[T]):
    """A job has ended.

    Attributes:
        job: its name.
        result: what it found; None where there is none.
        error: why it failed; None where it did not.

    A job with neither is running in another process.
    """

    job: str
    result: T | None = None
    error: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether another process is running the job."""
        return self.result is None and self.error is None


Event: TypeAlias = EpochDone | PartDone | Note | Shows | JobEnded[T]
