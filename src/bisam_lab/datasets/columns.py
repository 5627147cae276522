"""Which columns of a table are its texts and its labels."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import RecipeError

__all__ = ["LABELS", "TEXTS", "named"]

#: Names of a column of texts, where no column is called ``text``.
TEXTS = ("text", "texts", "sentence", "review", "content", "document", "comment", "message", "tweet", "question")
#: Names of a column of labels, where no column is called ``label``.
LABELS = ("label", "labels", "class", "category", "target", "sentiment", "y")


def named(columns: Iterable[str], where: Path) -> tuple[tuple[str, ...], str]:
    """Return the names of the columns of the texts, one or two, and of the labels.

    They are ``text`` (or ``text1`` and ``text2``) and ``label``. Without these they are the only columns with a name of
    :data:`TEXTS` and of :data:`LABELS`, in small or capital letters.

    Raises:
        RecipeError: there are none, or several.
    """
    there = list(columns)
    pair = ("text1", "text2")
    texts = pair if set(pair) <= set(there) else (_one(there, TEXTS, where),)
    return texts, _one(there, LABELS, where)


def _one(there: list[str], names: tuple[str, ...], where: Path) -> str:
    if names[0] in there:
        return names[0]
    found = [column for column in there if column.strip().lower() in names]
    if len(found) != 1:
        which = f"which of {' and '.join(found)} is it?" if found else f"it has {', '.join(there)}."
        raise RecipeError(f"{where} has no column {names[0]}: {which} Rename it to {names[0]} in the header")
    return found[0]
