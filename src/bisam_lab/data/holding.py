"""What the user's own data hold: how many examples of each class, and what cannot be read."""

from pathlib import Path

from ..datasets.checks import broken_pictures
from ..datasets.columns import named
from ..datasets.folders import read_folder
from ..datasets.own import place_of
from ..datasets.table_files import read_file
from ..datasets.tables import read_tables, table_files

__all__ = ["report_own"]


def report_own(name: str, data_dir: Path) -> list[str]:
    """Say what ``folder:PATH`` or ``text:PATH`` holds. Lines that begin with ``broken: `` name broken files.

    Raises:
        RecipeError: it cannot be read as a data set.
    """
    kind, _, path = name.partition(":")
    return (_pictures if kind == "folder" else _texts)(place_of(path, data_dir))


def _pictures(folder: Path) -> list[str]:
    found = read_folder(folder)
    parts = [part.y.tolist() for part in (found.train, found.test)]
    kind = f"pictures of {len(found.classes)} classes, at {found.size} pixels"
    return [*_counts(parts, found.classes, kind), *(f"broken: {checked.note}" for checked in broken_pictures(found))]


def _texts(path: Path) -> list[str]:
    found, first = read_tables(path), table_files(path)[0]
    names, label = named(read_file(first), first)
    parts = [[sample.label for sample in part] for part in (found.train, found.test)]
    kind = f"texts of {len(found.classes)} classes, columns {', '.join(names)} and {label}"
    return _counts(parts, found.classes, kind)


def _counts(parts: list[list[int]], classes: tuple[str, ...], kind: str) -> list[str]:
    """Return a line for all and one for each class: how many are for training, and how many for testing."""
    train, test = parts
    each = [f"{name}: {train.count(k)} + {test.count(k)}" for k, name in enumerate(classes)]
    return [f"{len(train)} + {len(test)} {kind}", *each]
