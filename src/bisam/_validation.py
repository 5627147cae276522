"""Checks of numbers that a user passes: each error names the argument, its value, and what to pass instead."""

import math
import operator

__all__ = ["count", "finite", "fraction", "not_negative", "positive"]


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number above zero."""
    if not _number(name, value) > 0:
        raise ValueError(f"{name}={value!r} must be a finite number greater than 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number, zero or above."""
    if not _number(name, value) >= 0:
        raise ValueError(f"{name}={value!r} must be a finite number, 0 or greater")
    return float(value)


def finite(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number."""
    if math.isnan(_number(name, value)):
        raise ValueError(f"{name}={value!r} must be a finite number")
    return float(value)


def fraction(name: str, value: float) -> float:
    """Return ``value`` as a float if it lies in (0, 1]."""
    if not 0 < _number(name, value) <= 1:
        raise ValueError(f"{name}={value!r} must lie above 0 and be at most 1")
    return float(value)


def count(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number, ``least`` or more."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool) or whole < least:
        raise ValueError(f"{name}={value!r} must be a whole number, {least} or more")
    return whole


def _number(name: str, value: object) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"{name}={value!r} must be a number, not text: leave out the quotes")
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be a number, not a bool")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r} must be a number, got {type(value).__name__}") from None
    return number if -math.inf < number < math.inf else math.nan  # comparisons only: torch.compile traces them
