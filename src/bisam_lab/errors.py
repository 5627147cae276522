"""The error that the user can mend: one sentence, and the nearest word that would be right."""

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["LONGEST_LINE", "RecipeError", "nearest", "one_line", "shown", "some"]

#: Characters of a line of an error; a longer one loses its middle.
LONGEST_LINE = 190


class RecipeError(ValueError):
    """A recipe that cannot be run. The message is one sentence for each wrong field."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for the end of a sentence, or the empty string."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""


def one_line(text: str, most: int = 150) -> str:
    """Return a text of unknown origin on one line.

    Where it is too long, long words, such as paths, lose their middles first, and then the whole line does.
    """
    words = text.split()
    for longest in (most, 60, 40):
        line = " ".join(_cut(word, longest) for word in words)
        if len(line) <= most:
            return line
    return _cut(line, most)


def _cut(text: str, most: int) -> str:
    """Return a text without its middle, if it is longer than ``most``."""
    return text if len(text) <= most else f"{text[: most // 2 - 2]}...{text[len(text) - (most - most // 2 - 1) :]}"


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: in ASCII and shortened where it cannot be printed or is long."""
    try:
        text = str(value) if hasattr(value, "__fspath__") else repr(value)
        text.encode()
    except UnicodeEncodeError:
        text = ascii(str(value))
    except (ValueError, RecursionError):  # a number of too many digits; a list inside itself
        text = f"a {type(value).__name__}"
    return one_line(text, most)


def some(parts: Sequence[str], most: int = 2) -> str:
    """Return the first parts of a list, each shortened, and how many more there are."""
    more = f"; and {len(parts) - most} more" if len(parts) > most else ""
    return "; ".join(one_line(part, 60) for part in parts[:most]) + more
