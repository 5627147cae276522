"""Numbers and names as the page and the figure write them."""

import math
import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..registry.metrics import metric_name

if TYPE_CHECKING:
    from ..statistics import Comparison
    from ..statistics.findings import Finding

__all__ = [
    "NONE",
    "count",
    "count_of",
    "interval",
    "metric_name",
    "named",
    "number",
    "p_value",
    "short",
    "signed",
    "stopping_words",
    "value",
]

#: Stands where there is no number: one seed has no spread, and no test.
NONE = "\u2013"
#: A word with a hyphen in it, an option, a number with its per cent, an interval in brackets.
_UNBROKEN = re.compile(
    r"[\w@=.+/:]+(?:-[\w@=.+/:]+)+|--\w[\w-]*|[-+\u2212]?\d[\d.,]* %|\[[-+\u2212\d.,?]+, [-+\u2212\d.,?]+\]"
)


def number(value: float, digits: int = 2) -> str:
    """Return a number with ``digits`` decimals; a dash if it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, with ``digits`` decimals; from 5 on, ``digits`` significant digits."""
    if not math.isfinite(value):
        return NONE
    text = f"{value:+.{digits}f}" if digits < 5 else f"{value:+.{digits}g}"
    text = text[1:] if float(text) == 0 else text
    return text.replace("-", "\u2212")


def interval(row: "Comparison | Finding") -> str:
    """Return a confidence interval; a dash where there is none."""
    return f"[{signed(row.low)}, {signed(row.high)}]" if math.isfinite(row.low + row.high) else NONE


def p_value(p: float) -> str:
    """Return a p-value with four decimals; a dash where there is none."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def count(n: int, word: str) -> str:
    """Return a number with its noun, in the plural where there is not one."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def stopping_words(rule: int | str) -> str:
    """Return a stopping rule: a number of seeds, or what the recipe says."""
    return f"{rule} seeds" if isinstance(rule, int) else rule.rstrip(".")


def count_of(number: float) -> str:
    """Return a large number in short: 6.2k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{number:.6g}"


def named(words: str) -> Markup:
    """Return a text as HTML in which no name, number or interval is broken at the end of a line.

    A browser breaks a line behind a hyphen, so that ``bisam-log`` would be cut in two.
    """
    return Markup(_UNBROKEN.sub(_held, str(escape(words))))


def _held(found: "re.Match[str]") -> str:
    word = found.group()
    parts = [word] if len(word) <= 28 else re.split(r"(?<=\+)", word)  # a combination may be broken behind a plus
    return "<wbr>".join(f'<span class="held">{part}</span>' if len(part) <= 28 else part for part in parts)


def short(method: str) -> str:
    """Return a method's name, cut to 18 letters."""
    return method if len(method) <= 18 else f"{method[:17]}…"


def value(item: Any) -> str:
    """Return a setting as text; a list as its items."""
    if isinstance(item, list | tuple):
        return ", ".join(map(value, item)) or "none"
    if isinstance(item, dict):
        return ", ".join(f"{key} {value(inner)}" for key, inner in item.items())
    return "none" if item in (None, "") else str(item)
