"""Whether the process that runs a trial is alive.

In the journal of a folder a process holds a lock on a file, which the kernel releases when the process ends, for
whatever reason. In a database, which processes of other machines use too, it writes Optuna's heartbeat.
"""

import contextlib
import threading
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat

from .retry import folder_name

__all__ = ["Heartbeat", "KernelLock", "is_locked"]


class KernelLock:
    """Holds the lock of a trial until :meth:`release` or the end of the process."""

    def __init__(self, folder: Path, number: int) -> None:
        self._lock = _lock(folder, number)
        self._lock.acquire(timeout=0)

    def release(self) -> None:
        """Let another process run the trial."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


class Heartbeat:
    """Writes signs of life of a trial until :meth:`release` or the end of the process.

    Optuna's own thread does so only within ``Study.optimize``, and ends for good when the database is away once.
    """

    def __init__(self, storage: BaseStorage, trial_id: int) -> None:
        assert isinstance(storage, BaseHeartbeat)
        self._storage, self._id, self._over = storage, trial_id, threading.Event()
        storage.record_heartbeat(trial_id)
        threading.Thread(target=self._beat, args=(storage.get_heartbeat_interval(),), daemon=True).start()

    def release(self) -> None:
        """Write no more."""
        self._over.set()

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            with contextlib.suppress(UpdateFinishedTrialError, StorageInternalError, OSError):
                self._storage.record_heartbeat(self._id)


def is_locked(folder: Path, number: int) -> bool:
    """Return whether a process of a folder is running a trial."""
    lock = _lock(folder, number)
    try:
        with lock.acquire(timeout=0):
            Path(lock.lock_file).unlink(missing_ok=True)
            return False
    except Timeout:
        return True


def _lock(folder: Path, number: int) -> FileLock:
    (folder / "trials").mkdir(exist_ok=True)
    return FileLock(folder / "trials" / f"{folder_name(number)}.lock")
