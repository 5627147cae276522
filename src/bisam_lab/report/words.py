"""Numbers and names as the page writes them."""

import math
from typing import Any

from ..registry.metrics import metric_name

__all__ = ["count", "metric_name", "number", "p_value", "signed", "value"]


def number(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals; a question mark where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "?"


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign; beyond four digits, as short as it is exact."""
    if not math.isfinite(value):
        return "?"
    text = f"{value:+.{digits}f}" if digits < 5 else f"{value:+.{digits}g}"
    text = text[1:] if float(text) == 0 else text
    return text.replace("-", "\u2212")


def p_value(p: float) -> str:
    """Return a p-value to four digits."""
    return "?" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def count(n: int, word: str) -> str:
    """Return a number of things."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def value(item: Any) -> str:
    """Return a setting, a list as its items."""
    if isinstance(item, list | tuple):
        return ", ".join(map(value, item)) or "none"
    if isinstance(item, dict):
        return ", ".join(f"{key} {value(inner)}" for key, inner in item.items())
    return "none" if item in (None, "") else str(item)
