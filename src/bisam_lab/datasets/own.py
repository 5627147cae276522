"""Folders of the user's own: ``folder:PATH`` holds pictures, ``text:PATH`` texts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .checks import readable
from .contents import Contents
from .entry import Checked, DataSet
from .folders import read_folder
from .tables import read_tables

__all__ = ["folder_of", "own_pictures", "own_texts"]


def own_pictures(path: str) -> DataSet:
    """Return the entry of ``folder:PATH``."""
    return _own("folder", path, read_folder, "your own pictures: train/CLASS/*.jpg, test/CLASS/*.jpg")


def own_texts(path: str) -> DataSet:
    """Return the entry of ``text:PATH``."""
    return _own("text", path, read_tables, "your own texts: {train,test}.{tsv,parquet}, columns text, label")


def _own(kind: str, path: str, read: Callable[[Path], Contents], what: str) -> DataSet:
    def check(_: DataSet, data_dir: Path) -> Iterator[Checked]:
        folder = folder_of(path, data_dir)
        if folder.is_dir():
            yield from readable(folder, lambda: read(folder))
        else:
            yield Checked(folder, "missing")

    return DataSet(
        name=f"{kind}:{path}",
        read=lambda data_dir: read(folder_of(path, data_dir)),
        what=what,
        licence="yours",
        home=path,
        check=check,
    )


def folder_of(path: str, data_dir: Path) -> Path:
    """Return ``path`` if a folder lies there, else the same path under --data-dir."""
    given = Path(path).expanduser()
    return given if given.is_dir() else data_dir / given
