"""The storage of the trials: a journal in the folder, or any storage that Optuna has a URL for.

The journal is a text file with one line per operation; lines are only appended. It has two advantages over SQLite. If a
process is killed, at most the last line is unfinished. And SQLite's locks fail on many network file systems, where
machines share a folder. Optuna's own lock for the journal is a file, which a killed process leaves behind for half a
minute. The lock here belongs to the kernel and is released with the process. The next process that takes it cuts off an
unfinished line.
"""

import os
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial

from ..recipe import RecipeError

__all__ = ["JOURNAL", "open_storage", "read_journal"]

#: Name of the journal in the folder.
JOURNAL = "optuna.log"


class _Lock(BaseJournalFileLock):
    """The lock of the process that appends. Once it is taken, the file ends with a complete line."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FileLock(path.with_suffix(".lock"))

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.lock.acquire()
        _cut_unfinished_line(self.path)
        return True

    def release(self) -> None:
        """Let the next process append."""
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


def open_storage(folder: Path, url: str | None, beat: int, silent: int) -> BaseStorage:
    """Open the folder's journal, or the storage at ``url``.

    Args:
        folder: of the tuning.
        url: of a database; None for the journal.
        beat: seconds between two signs of life of a trial in a database.
        silent: seconds without one after which it counts as dead.

    Raises:
        RecipeError: there is no such storage, or a package for it is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = folder / JOURNAL
        return JournalStorage(JournalFileBackend(str(path), _Lock(path)))
    from .database import open_database  # here, because the journal does not need SQLAlchemy

    return open_database(url, beat, silent)


def read_journal(folder: Path) -> tuple[list[FrozenTrial], dict[str, Any]] | None:
    """Return the trials in a folder's journal and what it says of itself, and change nothing; None if it has none.

    Raises:
        RecipeError: the journal is damaged.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), _Lock(path)))
        names = optuna.get_all_study_names(storage)
        if not names:
            return [], {}
        study = optuna.load_study(study_name=names[0], storage=storage)
        return study.get_trials(deepcopy=False), dict(study.user_attrs)
    except Exception as error:  # noqa: BLE001 Optuna raises whatever its own lines lead it to
        said = " ".join(str(error).split())[:60]
        raise RecipeError(
            f"{path} is damaged ({type(error).__name__}: {said}): restore it, or tune in another folder"
        ) from None
