"""A study or a run in an object storage, and the working copy that each machine has of it.

The storage holds the truth, and all code works on the files of the copy. What is brought here and taken there is what
this file says: few objects, named one by one, and one list of them for a whole study.
"""

import hashlib
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecipeError
from .files import BUDGET, temporary
from .looks import LOOK
from .store import Store

__all__ = ["Remote", "open_remote", "read_remote"]

#: What tells one study at a URL from another one that was there before.
TOKEN = ".id"
#: Objects at the top that decide how a study or a run goes on. They are taken there one by one.
_READ = ("recipe.yaml", "study.json", BUDGET, LOOK, "run.yaml")


@dataclass(frozen=True)
class Remote:
    """A folder in an object storage, as every machine knows it.

    Attributes:
        url: of the folder.
        token: of what is there now; empty where bisam has not begun it.
    """

    url: str
    token: str = ""

    @property
    def store(self) -> Store:
        """The folder's objects."""
        return Store(self.url)

    @property
    def folder(self) -> Path:
        """The working copy on this machine. Another study at the same URL has another one."""
        key = hashlib.sha256(f"{self.url}\n{self.token}".encode()).hexdigest()[:16]
        return _cache() / key / self.url.rsplit("/", 1)[-1]

    def bring(self, names: Collection[str]) -> None:
        """Bring small objects here; one that is not there is left out."""
        for name, content in self.store.read_all(names):
            _put(self.folder / name, content)

    def bring_results(self) -> set[str]:
        """Bring the results that are not here, and return the names of all objects there."""
        there = self.store.list()
        wanted = [name for name in there if name.endswith("/result.json") and not name.startswith("quarantine/")]
        self.bring([name for name in wanted if _size(self.folder / name) != int(there[name].split()[0])])
        return set(there)

    def take(self, *names: str) -> None:
        """Take small files of the copy there."""
        for name in names:
            self.store.write(name, (self.folder / name).read_bytes())

    def take_top(self) -> None:
        """Take what was made of the results there: tables, figures, pages, the last look."""
        made = [path.name for path in self.folder.glob("[!.]*") if path.is_file()]
        self.take(*(name for name in made if name == LOOK or name not in _READ))

    def set_aside(self, path: str, aside: Path) -> None:
        """Put a damaged result there beside, which :meth:`Study._quarantine` has put beside here.

        One that another machine has written in the meantime stays.
        """
        damaged = (self.folder / aside / "result.json").read_bytes()
        if self.store.read(f"{path}/result.json") == damaged:
            self.take(f"{aside}/result.json", f"{aside}/REASON.txt")
            self.store.remove(f"{path}/result.json")


def open_remote(url: str, marks: Collection[str]) -> Remote:
    """Find a folder in an object storage, or begin it; and bring what decides whether it can go on.

    Args:
        url: of the folder.
        marks: how names begin of which a folder of this kind has one or more.

    Raises:
        RecipeError: it holds other objects, or is in a storage that cannot be used.
        StoreError: the storage does not answer, or refuses to create an object, or does not know how to.
    """
    store = Store(url, patience=0.0)  # what is wrong is said at once
    names = store.names()
    if names - {TOKEN} and not any(name.startswith(tuple(marks)) for name in names):
        raise RecipeError(f"--out {url} holds objects of another kind: choose an empty folder or one of bisam's own")
    store.create(TOKEN, secrets.token_hex(8).encode())
    token = store.read(TOKEN) or b""
    if store.create(TOKEN, token + b" "):
        raise RecipeError(
            f"--out {url}: this storage writes over an object where it shall create one (If-None-Match), so two "
            "machines would train one run: use another storage, or a shared folder"
        )
    remote = Remote(store.url, token.decode("ascii", "replace"))
    _make(remote.folder)
    remote.bring([name for name in _READ if name in names])
    return remote


def read_remote(url: str, weights: bool = False) -> Remote:
    """Bring what a report needs of a study or a run in an object storage, and return where it is.

    Args:
        url: of the folder.
        weights: bring a run's tested weights as well.

    Raises:
        RecipeError: there is nothing, or the storage cannot be used.
        StoreError: it does not answer, or refuses.
    """
    store = Store(url, patience=0.0)
    if not (there := store.list()):
        raise RecipeError(f"{url} holds nothing: name the folder that was --out of bisam compare or bisam train")
    remote = Remote(store.url, (store.read(TOKEN) or b"").decode("ascii", "replace"))
    _make(remote.folder)
    remote.bring_results()
    remote.bring([name for name in (*_READ, "result.json", "csv/metrics.csv") if name in there])
    if weights:
        if (best := "checkpoints/best.pt") not in there:
            raise RecipeError(f"{url} holds no {best}: name a run of bisam train, or of bisam compare --keep-weights")
        store.fetch(best, remote.folder / best)
    return remote


def _cache() -> Path:
    """Return where working copies lie: BISAM_CACHE, or the user's cache folder."""
    if own := os.environ.get("BISAM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bisam"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{folder} cannot be created ({error.strerror}): set BISAM_CACHE to another folder") from None


def _put(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary(path)
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
