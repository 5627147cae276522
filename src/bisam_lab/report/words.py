"""Numbers and names as the page and the figure write them."""

import math
from typing import Any

from ..registry.metrics import metric_name

__all__ = ["NONE", "count", "interval", "metric_name", "number", "p_value", "short", "signed", "value"]

#: Stands where there is no number: one seed has no spread, and no test.
NONE = "\u2013"


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


def interval(low: float, high: float) -> str:
    """Return an interval; a dash where there is none."""
    return NONE if math.isnan(low) or math.isnan(high) else f"[{signed(low)}, {signed(high)}]"


def p_value(p: float) -> str:
    """Return a p-value with four decimals; a dash where there is none."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def count(n: int, word: str) -> str:
    """Return a number with its noun, in the plural where there is not one."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


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
