"""Whether the files of a data set are the official ones, file by file."""

from collections.abc import Iterator
from pathlib import Path

from ..datasets import DataSet
from ..datasets.checks import NO_CHECKSUM, by_checksum, by_reading
from ..datasets.entry import Checked
from .find import find

__all__ = ["verify"]


def verify(name: str, data_dir: Path) -> list[Checked]:
    """Check the files of a set.

    Returns:
        Each file with its state. A set is whole if none is missing or broken.

    Raises:
        RecipeError: there is no such set.
    """
    entry = find(name)
    archives = [*_archives(entry, data_dir)]
    if entry.check is not None:
        return [*archives, *entry.check(entry, data_dir)]
    return archives or [*by_reading(entry, data_dir)]


def _archives(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    """Check the official files. The user may have deleted those that are unpacked."""
    for archive in entry.archives():
        path = data_dir / archive.path
        if not path.is_file() and archive.makes is not None:
            continue
        if archive.md5 is not None:
            yield by_checksum(path, archive.md5)
        else:
            yield Checked(path, "unchecked", NO_CHECKSUM) if path.is_file() else Checked(path, "missing")
