"""Set a folder of results aside, so that another can begin in its place. Nothing is deleted."""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from ..recipe import RecipeError

__all__ = ["set_aside"]


def set_aside(folder: Path, marks: Collection[str]) -> Path | None:
    """Rename a folder of results to ``FOLDER.1``, or the first number that is free.

    Args:
        folder: of a study, a tuning, or a run.
        marks: names of which a folder of this kind has one or more.

    Returns:
        The new path; None where there is no folder of this kind.

    Raises:
        RecipeError: a process works on the folder, or the system does not allow to rename it.
    """
    if not any((folder / name).exists() for name in marks):
        return None
    whole = folder.resolve()
    try:
        with ExitStack() as locks:
            for lock in whole.rglob("*.lock"):  # each run's, and the folder's own
                locks.enter_context(FileLock(lock, timeout=0))
            number = 1
            while (there := whole.with_name(f"{whole.name}.{number}")).exists():
                number += 1
            whole.rename(there)
    except Timeout:
        raise RecipeError(f"--restart: another process is training in {folder}: stop it first") from None
    except OSError as error:
        raise RecipeError(f"--restart: {folder} cannot be renamed ({error.strerror}): use another --out") from None
    return folder.with_name(there.name) if folder.name not in ("", ".", "..") else there
