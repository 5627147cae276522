"""A run in an object storage: its state and its result are brought here, and taken there."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..run.result import RunResult
from .files import write_result, write_text
from .remote import Remote
from .store import PATIENCE, Store

__all__ = ["WEIGHTS", "RemoteRun"]

#: In a run's folder here: what of it is there as it is here; and that its result is still to be taken there.
_SENT, _UNSENT = ".sent", ".unsent"
_RESULT, _LAST, _PREVIOUS = "result.json", "checkpoints/last.pt", "checkpoints/previous.pt"
#: The tested weights of a run that keeps them.
WEIGHTS = "checkpoints/best.pt"


@dataclass(frozen=True)
class RemoteRun:
    """A run in an object storage.

    Attributes:
        remote: that it lies in.
        path: inside.
        patience: seconds for which a storage that does not answer is asked again.
    """

    remote: Remote
    path: str
    patience: float = PATIENCE

    @classmethod
    def of(cls, remote: Remote, folder: Path) -> "RemoteRun":
        """Return the run whose folder in this machine's working copy is given."""
        path = folder.relative_to(remote.folder).as_posix()
        return cls(remote, "" if path == "." else path)

    @property
    def folder(self) -> Path:
        """Of the run in this machine's working copy."""
        return self.remote.folder / self.path

    @property
    def url(self) -> str:
        """Of the run."""
        return f"{self.remote.url}/{self.path}".rstrip("/")

    @property
    def store(self) -> Store:
        """The run's objects."""
        return Store(self.url, self.patience)

    def bring(self) -> None:
        """Bring the run's result here, or else the state to go on from. The folder must be held.

        A state that could not be taken there stays, unless another machine has gone on there in the meantime.
        """
        store, there = self.store, self.store.list()
        self._agree(_RESULT in there)
        if _RESULT in there:
            store.fetch(_RESULT, self.folder / _RESULT)
            return
        for name in there:
            if name.startswith("checkpoints/epoch-") and not (self.folder / name).exists():
                self._fetch(store, name, there[name])
        mark = there.get(_LAST, "")
        if mark == self._sent().get(_LAST, ("", ""))[1]:
            return  # what is here is what is there, or follows it
        if mark:
            self._fetch(store, _LAST, mark)
        else:  # somebody has deleted it
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def agree(self, there: bool) -> None:
        """Let the result here be the one that is there. One that could not be taken there is taken now.

        A run that a process of this machine is training is left alone.

        Args:
            there: whether a result is there.
        """
        if (self.folder / _RESULT).exists() and (not there or (self.folder / _UNSENT).exists()):
            with contextlib.suppress(Timeout), FileLock(self.folder / ".lock", timeout=0):
                self._agree(there)

    def _agree(self, there: bool) -> None:
        if (self.folder / _UNSENT).exists() and (self.folder / _RESULT).exists():
            self.take()
        elif not there:  # somebody has deleted it
            (self.folder / _RESULT).unlink(missing_ok=True)

    def keep(self, result: RunResult) -> None:
        """Write a result into the folder here, to be taken there."""
        (self.folder / _UNSENT).touch()
        write_result(self.folder, result)

    def bring_weights(self) -> None:
        """Bring the tested weights of a finished run here, if they are there."""
        self.store.fetch(WEIGHTS, self.folder / WEIGHTS)

    def put_result(self) -> None:
        """Take a finished run's result there, over the one that it completes."""
        self.store.write(_RESULT, (self.folder / _RESULT).read_bytes())

    def send_state(self) -> None:
        """Take checkpoints there that have changed, but for the tested weights, which a run has when it has ended."""
        for path in (self.folder / "checkpoints").glob("*.pt"):
            if path.name == "last.pt" or path.name.startswith("epoch-"):
                self._send(self.store, f"checkpoints/{path.name}")

    def take(self) -> None:
        """Take a finished run there, and its result last, if there is none yet. Else that one is brought here.

        Checkpoints that are here no more are deleted there.

        Raises:
            StoreError: the storage does not answer. What is here stays, and the next call goes on.
        """
        store, folder = self.store, self.folder
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
        for name in names:
            if name not in (_RESULT, _PREVIOUS) and not any(part.startswith(".") for part in Path(name).parts):
                self._send(store, name)
        if not store.create(_RESULT, (folder / _RESULT).read_bytes()):
            store.fetch(_RESULT, folder / _RESULT)
        for name in self._sent():
            if name not in names:
                store.remove(name)
        for name in (_UNSENT, _SENT):
            (folder / name).unlink(missing_ok=True)

    def _fetch(self, store: Store, name: str, mark: str) -> None:
        if store.fetch(name, self.folder / name):
            self._note(name, mark)

    def _send(self, store: Store, name: str) -> None:
        """Take a file there, unless it is there as it is here."""
        path = self.folder / name
        if _stamp(path) != self._sent().get(name, ("", ""))[0]:
            stamp = _stamp(path)  # before, for it may change while it is read
            store.send(path, name)
            self._note(name, store.mark(name) if name == _LAST else "", stamp)

    def _sent(self) -> dict[str, tuple[str, str]]:
        """Return the stamp here and the mark there of what is there as it is here."""
        try:
            return {
                name: (stamp, mark) for name, (stamp, mark) in json.loads((self.folder / _SENT).read_text()).items()
            }
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _note(self, name: str, mark: str, stamp: str | None = None) -> None:
        known = self._sent() | {name: (stamp or _stamp(self.folder / name), mark)}
        write_text(self.folder / _SENT, json.dumps(known))


def _stamp(path: Path) -> str:
    """Return what changes when a file is written anew; empty: it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
