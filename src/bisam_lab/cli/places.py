"""Where results lie: a folder of a disk, or, for some commands, a URL of an object storage."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import RecipeError

if TYPE_CHECKING:
    from ..study.remote import Remote

__all__ = ["brought", "disk", "is_url", "opened", "path_of"]


#: What to write instead of a URL.
_INSTEAD = "only --out of bisam compare and bisam train, and what bisam report and bisam audit read, may be a URL"


def is_url(text: str) -> bool:
    """Whether a word is the address of something that no disk holds."""
    return "://" in text and not text.startswith("file:///")


def path_of(text: object, instead: str = _INSTEAD) -> Path:
    """Return the path of a file or folder of a disk; ``file:///tmp/x`` is one.

    Args:
        text: as the user says it.
        instead: what to write where it is a URL.

    Raises:
        RecipeError: it is the address of something else.
    """
    given = str(text)
    if is_url(given):
        raise RecipeError(f"{given}: this must lie on a disk; {instead}")
    return Path(given.removeprefix("file://") if given.startswith("file:///") else given)


def disk(text: object, instead: str = _INSTEAD) -> Path:
    """Return what :func:`path_of` does, as an option's parser."""
    try:
        return path_of(text, instead)
    except RecipeError as error:
        raise typer.BadParameter(str(error)) from None


def opened(
    out: str | None, usual: Path, marks: Collection[str], *, again: bool = False, several: bool = False
) -> "tuple[Path, Remote | None]":
    """Return the folder of results that ``--out`` names, and where it lies in an object storage.

    Args:
        out: as the user says it.
        usual: the folder where he says nothing.
        marks: how names begin of which a folder of this kind has one or more.
        again: whether what is there shall be set aside.
        several: whether processes of one run write there together.

    Raises:
        RecipeError: the storage cannot be used, holds something else, shall be set aside, or is for one process a run.
        StoreError: it does not answer, or refuses.
    """
    if out is None or not is_url(out):
        return usual if out is None else path_of(out), None
    if several:
        raise RecipeError(f"--out {out}: the processes of one run write together: name a folder that all of them share")
    if again:
        raise RecipeError(f"--restart renames a folder, which no object storage can: name another one than --out {out}")
    if out.startswith("memory://"):
        raise RecipeError(f"--out {out} would be gone with this process, and others do not see it: name a folder")
    from ..study.remote import open_remote  # here, because torch takes seconds to import and --help must be fast

    remote = open_remote(out, marks)
    return remote.folder, remote


def brought(word: str, *, weights: bool = False) -> "tuple[Path, Remote | None]":
    """Return a folder to read, and where it lies in an object storage, from which it is brought here.

    Args:
        word: path or URL.
        weights: bring a run's tested weights as well.

    Raises:
        RecipeError: nothing is there, or the storage cannot be used.
        StoreError: it does not answer, or refuses.
    """
    if not is_url(word):
        return path_of(word), None
    from ..study.remote import read_remote

    remote = read_remote(word, weights)
    return remote.folder, remote
