"""Data of the user's own: ``folder:PATH`` holds pictures, ``text:PATH`` texts, in a folder or in one file."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .checks import readable
from .contents import Contents
from .entry import Checked, DataSet
from .folders import read_folder
from .tables import read_tables

__all__ = ["own_pictures", "own_texts", "place_of"]


def own_pictures(path: str) -> DataSet:
    """Return the entry of ``folder:PATH``."""
    return _own("folder", path, read_folder, "your own pictures: train/CLASS/*.jpg, test/CLASS/*.jpg")


def own_texts(path: str) -> DataSet:
    """Return the entry of ``text:PATH``."""
    return _own(
        "text", path, read_tables, "your own texts: FILE.csv, .tsv or .parquet, columns text, label; or train and test"
    )


def _own(kind: str, path: str, read: Callable[[Path], Contents], what: str) -> DataSet:
    def check(_: DataSet, data_dir: Path) -> Iterator[Checked]:
        place = place_of(path, data_dir)
        if place.exists():
            yield from readable(place, lambda: read(place))
        else:
            yield Checked(place, "missing")

    return DataSet(
        name=f"{kind}:{path}",
        read=lambda data_dir: read(place_of(path, data_dir)),
        what=what,
        licence="yours",
        home=path,
        check=check,
    )


def place_of(path: str, data_dir: Path) -> Path:
    """Return ``path`` if something lies there, else the same path under --data-dir."""
    given = Path(path).expanduser()
    return given if given.exists() else data_dir / given
