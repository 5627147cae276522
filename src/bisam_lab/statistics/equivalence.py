"""Equivalence: two one-sided tests (Schuirmann 1987) of paired differences against a margin that was stated before.

"No evidence of a difference" is no evidence of equality. Equality within a margin m is shown if both hypotheses are
rejected that the mean difference is -m or less, and that it is m or more:

    t_low = (mean + m) / (s / sqrt(n)),    t_high = (m - mean) / (s / sqrt(n)),    n - 1 degrees of freedom.

The p-value is the larger one of the two, one-sided. It is below the level exactly if the interval of 1 - 2 x level lies
within (-m, m).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Equivalence", "points", "tost"]

#: Differences in points whose range is smaller have no spread: what is left is rounding.
NO_SPREAD = 1e-9


def points(number: float) -> str:
    """Return a margin with its unit."""
    return f"{number:g} point" if number == 1 else f"{number:g} points"


@dataclass(frozen=True)
class Equivalence:
    """A test of equivalence. Differences are in percentage points.

    Attributes:
        margin: differences below it do not matter.
        level: of each one-sided test, such as 0.05.
        low: lower end of the interval of 1 - 2 x level; NaN where there is no test.
        high: upper end.
        p: the larger one of the two one-sided p-values; NaN with fewer than two pairs, or without spread.
        p_adjusted: ``p`` after Holm's correction over the methods that are compared.
    """

    margin: float
    level: float
    low: float
    high: float
    p: float
    p_adjusted: float

    @property
    def shown(self) -> bool:
        """Whether the differences show that the methods are equivalent within the margin."""
        return self.p_adjusted < self.level

    @property
    def verdict(self) -> str:
        """The test in words."""
        within = f"equivalent within {points(self.margin)}"
        return within if self.shown else f"not shown to be {within}"


def tost(differences: Sequence[float], margin: float, level: float = 0.05) -> Equivalence:
    """Test whether the mean of paired differences lies within a margin: two one-sided t-tests (Schuirmann 1987).

    Args:
        differences: (n,), in points.
        margin: in points, stated before the differences were seen.
        level: of each test.

    Raises:
        ValueError: the margin is not positive, or the level not between 0 and 0.5.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin={margin!r} must be positive and finite: the points that do not matter, such as 0.3")
    if not 0 < level < 0.5:
        raise ValueError(f"level={level!r} must lie between 0 and 0.5, such as 0.05")
    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or not np.isfinite(d).all() or np.ptp(d) < NO_SPREAD:
        return Equivalence(margin, level, math.nan, math.nan, math.nan, math.nan)
    below = stats.ttest_1samp(d, -margin, alternative="greater")
    above = stats.ttest_1samp(d, margin, alternative="less")
    low, high = stats.ttest_1samp(d, 0.0).confidence_interval(1 - 2 * level)
    p = max(float(below.pvalue), float(above.pvalue))
    return Equivalence(margin, level, float(low), float(high), p, p)
