"""Who trains a run: one process, whatever the file system does with locks.

The process holds a lock of the kernel, which is free as soon as the process has died. Some network file systems do not
pass locks on to other machines, or keep those of a dead machine for a while. So the process also writes its name into a
file, and touches it from time to time. Another machine leaves a run alone whose file is fresh, and a process whose name
another one has replaced stops. A result is written by the first who has it (see :func:`.files.write_result`).
"""

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .files import temporary, write_text

__all__ = ["BEAT", "FRESH", "Busy", "Hold", "hold", "is_held"]

#: Seconds between two touches of the file, and seconds for which it counts as fresh.
BEAT, FRESH = 15.0, 60.0
#: Seconds between two looks of a process that waits for a run.
LOOK = 2.0
_LOCK, _HOLDER = ".lock", ".holder"


class Busy(Exception):  # noqa: N818 not an error
    """Another process is training this run."""


class Hold:
    """A run that this process trains.

    Attributes:
        lost: whether another process has taken it.
    """

    def __init__(self, folder: Path) -> None:
        self.lost = False
        self._file, self._name = folder / _HOLDER, secrets.token_hex(8)
        self._over = threading.Event()

    def begin(self) -> None:
        """Write this process's name, and keep the file fresh from now on."""
        write_text(self._file, json.dumps({"node": platform.node(), "process": os.getpid(), "name": self._name}))
        threading.Thread(target=self._beat, daemon=True).start()

    def end(self) -> None:
        """Give the run back."""
        self._over.set()
        if self._is_mine():
            self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise where another process has taken the run.

        Raises:
            Busy: it has.
        """
        if self.lost or not self._is_mine():
            raise Busy(str(self._file.parent))

    def _is_mine(self) -> bool:
        return _read(self._file).get("name") == self._name

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self.lost = self.lost or not self._is_mine()
                if not self.lost:
                    os.utime(self._file)
            except OSError:  # the file system does not answer now
                continue


@contextlib.contextmanager
def hold(folder: Path, patience: float = 0.0) -> Iterator[Hold]:
    """Hold a run within the block.

    Args:
        folder: of the run.
        patience: seconds to wait for it.

    Raises:
        Busy: another process, on this machine or another one, is training it.
    """
    end = time.monotonic() + patience
    with contextlib.ExitStack() as held:
        while True:
            try:
                _lock(folder, held)
                break
            except Busy:
                if time.monotonic() >= end:
                    raise
                time.sleep(min(LOOK, max(0.0, end - time.monotonic())))
        mine = Hold(folder)
        mine.begin()
        held.callback(mine.end)
        yield mine


def _lock(folder: Path, held: contextlib.ExitStack) -> None:
    """Take the lock, unless another machine trains the run without it."""
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(str(folder)) from None
    except NotImplementedError:  # this file system knows no locks
        if _is_fresh(folder):
            raise Busy(str(folder)) from None
        return
    if _read(folder / _HOLDER).get("node") not in (None, platform.node()) and _is_fresh(folder):
        lock.release()
        raise Busy(str(folder))
    held.callback(lock.release)


def is_held(folder: Path) -> bool:
    """Whether a process is training the run. A folder that does not exist is held by nobody."""
    if not (folder / _LOCK).exists():
        return False
    try:
        with contextlib.ExitStack() as held:
            _lock(folder, held)
    except Busy:
        return True
    return False


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_fresh(folder: Path) -> bool:
    """Whether the file was touched a short time ago, by the clock of the file system."""
    try:
        then = (folder / _HOLDER).stat().st_mtime
    except FileNotFoundError:
        return False
    probe = temporary(folder / ".now")
    try:
        probe.touch()
        return probe.stat().st_mtime - then < FRESH
    finally:
        probe.unlink(missing_ok=True)
