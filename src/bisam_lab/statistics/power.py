"""Power of the paired t-test: the seeds that a difference needs, and the difference that a number of seeds can show.

Both functions ask what a study of n pairs would find for a given true difference. Neither uses the observed difference:
its "power" is only its p-value in other words (Hoenig and Heisey 2001). The standard deviation is usually estimated
from the pairs themselves, with n - 1 degrees of freedom. With five pairs the true one may be 0.6 to 2.9 times the
estimate (95 % interval by chi-squared). The differences are uncertain by the same factor, and the numbers of seeds by
about its square.
"""

import math

from scipy import optimize, stats

__all__ = ["detectable", "seeds_needed"]


def seeds_needed(sd: float, difference: float, power: float = 0.8, level: float = 0.05) -> int:
    """Return the smallest number of pairs with which a two-sided paired t-test has the given power.

    Args:
        sd: standard deviation of the paired differences.
        difference: the true mean difference to detect, in the unit of ``sd``.
        power: fraction of studies that should detect it.
        level: significance level of the test.

    Raises:
        ValueError: a number lies outside its range.
    """
    _check(sd, power, level)
    if not 0 < difference < math.inf:
        raise ValueError(
            f"difference={difference!r} must be positive and finite: it is the size of the difference to detect"
        )
    low, high = 1, 2
    while _power(high, difference / sd, level) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, difference / sd, level) >= power else (middle, high)
    return high


def detectable(sd: float, n: int, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that ``n`` pairs detect with the given power.

    It is the inverse of :func:`seeds_needed`.

    Raises:
        ValueError: a number lies outside its range.
    """
    _check(sd, power, level)
    if n < 2:
        raise ValueError(f"n={n!r} pairs have no spread; a t-test needs at least 2")
    high = 1.0
    while _power(n, high, level) < power:
        high *= 2
    return sd * float(optimize.brentq(lambda d: _power(n, d, level) - power, 0.0, high, xtol=1e-12))


def _check(sd: float, power: float, level: float) -> None:
    if not 0 < sd < math.inf:
        raise ValueError(f"sd={sd!r} must be positive and finite: it is the spread of the paired differences")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must lie between 0 and 1, such as 0.05")
    if not level < power < 1:
        raise ValueError(f"power={power!r} must lie between the level, {level!r}, and 1, such as 0.8")


def _power(n: int, effect: float, level: float) -> float:
    """Return the fraction of studies of n pairs that reject, for a true mean of ``effect`` standard deviations."""
    shift = effect * math.sqrt(n)
    edge = float(stats.t.isf(level / 2, n - 1))
    return float(stats.nct.sf(edge, n - 1, shift) + stats.nct.sf(edge, n - 1, -shift))
