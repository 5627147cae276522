"""YAML as plain values, up to a size: a few lines of it can stand for a billion values."""

from typing import Any

import yaml

from .errors import RecipeError, one_line, shown
from .untrusted import DEEPEST

__all__ = ["LARGEST_YAML", "parse_yaml"]

#: Characters of YAML, and values in it once its aliases are written out. The largest shipped recipe has a tenth.
LARGEST_YAML, MOST_VALUES = 100_000, 5_000


class _TooMuchError(yaml.YAMLError):
    """More values, or deeper ones, than are read."""


class _Loader(yaml.SafeLoader):
    """Reads plain values, and counts them as if each alias were written out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._total = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and count the nodes in it."""
        before, alias = self._total, self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _TooMuchError(f"its values lie more than {DEEPEST} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise _TooMuchError("an alias inside the value that it stands for")
        self._total += self._sizes[id(node)] if alias else 1
        self._sizes.setdefault(id(node), self._total - before)
        if self._total > MOST_VALUES:
            raise _TooMuchError(f"more than {MOST_VALUES:,} values, its aliases written out")
        return node


#: What the parser raises where a value has another form than its tag says, such as ``!!bool x`` or ``2001-99-99``.
_BROKEN = (
    *(yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError),
    *(RecursionError, AssertionError),
)


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values that a YAML text stands for.

    Args:
        text: at most :data:`LARGEST_YAML` characters.
        where: its name, for the message.

    Raises:
        RecipeError: it is too long or too deep, stands for too many values, or is no YAML.
    """
    if len(text) > LARGEST_YAML:
        raise RecipeError(f"{shown(where)} has {len(text):,} characters; {LARGEST_YAML:,} are read: make it shorter")
    try:
        return _Loader(text).get_single_data()
    except _BROKEN as error:
        remedy = "make it smaller" if isinstance(error, _TooMuchError) else "put a text in quotes"
        raise RecipeError(f"{shown(where)} is not valid YAML: {_problem(error)}; {remedy}") from None


def _problem(error: Exception) -> str:
    """Say in one phrase what the parser found."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark
        return one_line(error.problem, 80) + (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "")
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason}, at position {error.position}"
    if isinstance(error, _TooMuchError):
        return str(error)
    return "a date, a number or a value with a !!tag that has another form than such a value has"
