"""The error that the user can mend: one sentence, and the nearest word that would be right."""

import difflib
from collections.abc import Iterable

__all__ = ["RecipeError", "nearest"]


class RecipeError(ValueError):
    """A recipe that cannot be run. The message is one sentence for each wrong field."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for the end of a sentence, or the empty string."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""
