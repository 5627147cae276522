"""Where a value goes on a chart, and which values its axis names."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Axis", "fit"]


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` along ``start`` to ``end`` of the drawing, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round values inside the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1,)):
                found = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
                if len(found) <= count + 2:
                    return found
            return found[:: math.ceil(len(found) / count)]
        step = _round((self.high - self.low) / count)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def fit(values: Iterable[float], start: float, end: float, *, pad: float = 0.05, log: bool = False) -> Axis:
    """Return an axis around finite values; logarithmic if wished and if they span more than a factor of 30."""
    finite = sorted(value for value in values if math.isfinite(value))
    low, high = (finite[0], finite[-1]) if finite else (0.0, 1.0)
    if log and low > 0 and high / low > 30:
        return Axis(low / 1.2, high * 1.2, start, end, log=True)
    margin = pad * (high - low) or abs(high) * 0.05 or 0.5
    return Axis(low - margin, high + margin, start, end)


def _round(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
