"""The scale of a chart's axis: its range, whether it is logarithmic, and the values that it names."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale"]


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, pad: float = 0.05, log: bool = False) -> "Scale":
        """Return a scale around the finite values.

        Args:
            values: to show.
            pad: margin at each end, as a fraction of the range.
            log: use a logarithmic scale if the values span more than a factor of 30.
        """
        finite = sorted(value for value in values if math.isfinite(value))
        low, high = (finite[0], finite[-1]) if finite else (0.0, 1.0)
        if log and low > 0 and high / low > 30:
            return cls(low / 1.2, high * 1.2, log=True)
        margin = pad * (high - low) or abs(high) * 0.05 or 0.5
        return cls(low - margin, high + margin)

    def fraction(self, value: float) -> float:
        """Return how far along the scale a value lies: 0 at ``low``, 1 at ``high``."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round values on the scale."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1,)):
                found = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
                if len(found) <= count + 2:
                    return found
            return found[:: math.ceil(len(found) / count)]
        step = _round((self.high - self.low) / count)
        while math.floor(self.high / step) - math.ceil(self.low / step) < 2:  # fewer than three
            step = _round(step / 2.5)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def _round(step: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
