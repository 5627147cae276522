"""Where the trials are kept: a journal in the folder, or any storage that Optuna has a URL for.

The journal is a text file that is only ever appended to, a line an operation. It is chosen over SQLite because a kill
at any moment costs at most an unfinished last line, and because SQLite's locks fail on many network file systems, where
a folder shared by machines lies. Optuna's own locks for it are files that a killed process leaves behind for half a
minute; the one here is the kernel's, gone with the process, and whoever takes it first cuts an unfinished line off.
"""

import contextlib
import os
import time
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.storages.journal._file import BaseJournalFileLock

from ..recipe import RecipeError

__all__ = ["JOURNAL", "open_storage"]

#: Name of the journal in the folder.
JOURNAL = "optuna.log"
#: Times that a database is opened, and seconds between them.
TRIES, PAUSE = 8, 0.5


class _Lock(BaseJournalFileLock):
    """Held by the process that appends; before it does, the file ends with a whole line."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FileLock(path.with_suffix(".lock"))

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.lock.acquire()
        _cut_unfinished_line(self.path)
        return True

    def release(self) -> None:
        """Let the next one append."""
        self.lock.release()


def _cut_unfinished_line(path: Path) -> None:
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Open the folder's journal, or the storage at ``url``.

    Raises:
        RecipeError: no such storage, or a package for it that is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = folder / JOURNAL
        return JournalStorage(JournalFileBackend(str(path), _Lock(path)))
    from sqlalchemy.exc import DatabaseError, SQLAlchemyError  # here, for the journal does without

    try:
        if url.startswith("redis"):
            return JournalStorage(JournalRedisBackend(url))
        return _database(url, DatabaseError)
    except (ImportError, SQLAlchemyError, ValueError, OSError) as error:
        said, scheme = str(error).strip().splitlines()[0], url.partition(":")[0]  # a URL may hold a password
        raise RecipeError(f"--storage {scheme}:... cannot be opened ({said}); sqlite:///FILE needs no server") from None


def _database(url: str, error: type[Exception]) -> RDBStorage:
    """Open a database; Optuna makes its tables without a lock, and another process may just be at it."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(error):
            return RDBStorage(url)
        time.sleep(PAUSE)
    return RDBStorage(url)
