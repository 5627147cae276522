"""Checks of numbers that a user passes: what is wrong, and what to pass instead."""

import math

__all__ = ["not_negative", "positive"]


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


def _number(name: str, value: float) -> float:
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be a number, not a bool")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r} must be a number, got {type(value).__name__}") from None
    return number if -math.inf < number < math.inf else math.nan  # comparisons only: torch.compile traces them
