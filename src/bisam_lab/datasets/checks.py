"""Ways to check the files of a data set: by checksum, by size, or by reading them."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import RecipeError
from .contents import Contents, Images, Pictures, sizes
from .entry import Checked, DataSet

__all__ = [
    "NO_CHECKSUM",
    "broken_pictures",
    "by_checksum",
    "by_official_lists",
    "by_reading",
    "by_size",
    "md5",
    "readable",
]

#: Note of a file that is there and cannot be checked.
NO_CHECKSUM = "its authors publish no checksum of it"
_BLOCK = 1 << 20


def md5(path: Path) -> str:
    """Return the MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def by_checksum(path: Path, digest: str) -> Checked:
    """Compare a file's MD5 with the published one."""
    if not path.is_file():
        return Checked(path, "missing")
    found = md5(path)
    return Checked(path, "ok") if found == digest else Checked(path, "broken", f"MD5 {found}, not {digest}")


def by_size(path: Path, size: int) -> Checked:
    """Compare a file's number of bytes with the official one."""
    if not path.is_file():
        return Checked(path, "missing")
    if path.stat().st_size != size:
        return Checked(path, "broken", f"{path.stat().st_size} bytes, not {size}")
    return Checked(path, "unchecked", NO_CHECKSUM)


def by_official_lists(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    """Check that every picture of the official lists is there, and that the numbers are the official ones."""
    try:
        found = entry.load(data_dir)
    except (RecipeError, RuntimeError, OSError) as error:
        yield Checked(data_dir, "missing", str(error))
        return
    assert isinstance(found, Pictures) and entry.counts is not None
    for path in (*found.train.paths, *found.test.paths):
        if not Path(os.fsdecode(path)).is_file():
            yield Checked(Path(os.fsdecode(path)), "missing")
            return
    text = "{} + {} pictures of {} classes"
    counted = text.format(*sizes(found))
    if sizes(found) != entry.counts:
        yield Checked(data_dir, "broken", f"{counted}, not {text.format(*entry.counts)}")
    else:
        yield Checked(data_dir, "unchecked", f"{counted}; single pictures have no published checksums")


def by_reading(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    """Read the whole set."""
    path = entry.present(data_dir)
    if entry.inside and path is None:
        yield Checked(data_dir / entry.inside[0], "missing")
    else:
        yield from readable(path or Path(entry.name), lambda: entry.load(data_dir))


def readable(path: Path, read: Callable[[], Contents]) -> Iterator[Checked]:
    """Read what lies at ``path``, and decode every picture of it."""
    try:
        found = read()
    except (ValueError, RuntimeError, OSError, EOFError) as error:
        yield Checked(path, "broken", str(error))
        return
    if isinstance(found, Pictures):
        yield from broken_pictures(found) or [Checked(path, "ok", "every picture can be decoded")]
    else:
        train, test, classes = sizes(found)
        kind = "images" if isinstance(found, Images) else "texts"
        yield Checked(path, "unchecked", f"{train} + {test} {kind} of {classes} classes; {NO_CHECKSUM}")


def broken_pictures(found: Pictures) -> list[Checked]:
    """Return the pictures that cannot be decoded."""
    from .pictures import decode  # here, because torch takes seconds to import

    broken = []
    for path in (*found.train.paths, *found.test.paths):
        try:
            decode(path, 8)
        except RecipeError as error:
            broken.append(Checked(Path(os.fsdecode(path)), "broken", str(error)))
    return broken
