"""Tests of paired differences: each gives an estimate, its confidence interval, and a two-sided p-value.

========== ===================== =============================== ================================== ================
name       estimate              interval                        p-value                            assumption
========== ===================== =============================== ================================== ================
t          mean                  Student, paired                 Student, paired                    normal
wilcoxon   Hodges-Lehmann        order statistics of the Walsh   signed ranks, exact                symmetric
           pseudo-median         averages
bootstrap  mean                  BCa, 9999 resamples             sign flips, exact to 20 pairs      symmetric (p)
========== ===================== =============================== ================================== ================

Differences are in percentage points; two that differ by less than 1e-9 are equal. There is no test with fewer than two
pairs, without spread, or with a NaN: all results are then NaN. The two tests that do not assume normality cannot reach
the 5 % level with fewer than six pairs, because two of the 2^n equally likely outcomes are as extreme as the most
extreme one. Their intervals are then NaN, because no interval within the data has the level (:func:`smallest_rank_p`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["TESTS", "PairedTest", "chosen", "pseudo_median"]

Interval = tuple[float, float, float]
Floats = npt.NDArray[np.float64]

NOTHING: Interval = (math.nan, math.nan, math.nan)
DIGITS = 9  # decimals of a percentage point; smaller differences are rounding errors
RESAMPLES = 9_999
ALL_SIGNS = 20  # up to this number of pairs, all signs are enumerated
DRAWN_SIGNS = 2**16  # for more pairs, this many are drawn, with a fixed seed


@dataclass(frozen=True)
class PairedTest:
    """A test of paired differences.

    Attributes:
        run: returns both ends of the interval and the two-sided p-value, from the differences and the level.
        estimate: returns the estimate that the interval belongs to.
        words: name in a sentence, in the plural.
        mark: name in the heading of the intervals; empty for Student's t-test.
        mean: whether the estimate is the mean.
        smallest_p: returns the smallest possible p-value with n pairs. If it is above the level, the test can show
            nothing, whatever the differences are.
    """

    run: Callable[[Sequence[float], float], Interval]
    estimate: Callable[[Sequence[float]], float]
    words: str
    mark: str
    mean: bool
    smallest_p: Callable[[int], float]

    def interval(self, level: float = 0.95) -> str:
        """Return the name of its interval: the level, and the test if it is not Student's t-test."""
        return f"{100 * level:g} % interval" + (f" ({self.mark})" if self.mark else "")

    def __call__(self, differences: Sequence[float], level: float = 0.95) -> Interval:
        """Return (low, high, p); NaN for what the test cannot give.

        Raises:
            ValueError: the level does not lie between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level!r} must lie between 0 and 1; 0.95 is a 95 % interval")
        d = np.asarray(differences, dtype=float)
        if len(d) < 2 or not np.isfinite(d).all() or np.ptp(d) < 10**-DIGITS:
            return NOTHING
        return self.run(differences, level)


def smallest_rank_p(n: int) -> float:
    """Return the p-value of n differences of one sign: two of the 2^n ways to sign them are as extreme.

    The range of n draws misses the centre of a symmetric distribution with the same probability. So no interval within
    the data has a level above 1 minus this number.
    """
    return float(2.0 ** (1 - n))


def student(differences: Sequence[float], level: float) -> Interval:
    """Student's paired t-test (1908): interval of the mean, and p-value; they agree with each other."""
    test = stats.ttest_1samp(np.asarray(differences, dtype=float), 0.0)
    low, high = test.confidence_interval(level)
    return float(low), float(high), float(test.pvalue)


def wilcoxon(differences: Sequence[float], level: float) -> Interval:
    """Wilcoxon's signed-rank test (1945), with the interval of the pseudo-median that inverts it.

    The p-value is exact. Zeros are dropped (Wilcoxon's rule). With ties or zeros, it comes from flipping the signs of
    the (mid-)ranks instead of from the exact table. The ends of the interval are the k-th smallest and the k-th largest
    Walsh average, with the largest k at which the exact distribution without ties has the level (Hollander and Wolfe
    1973, ch. 3). Without ties and zeros, zero lies outside the interval exactly if p <= 1 - level. With them, the
    closed interval has at least the level (Noether 1967), and may contain zero although p is small.
    """
    d = np.round(np.asarray(differences, dtype=float), DIGITS)
    some = d[d != 0]
    ranks = np.sign(some) * stats.rankdata(np.abs(some))
    if len(some) == len(d) == len(np.unique(np.abs(d))) and len(d) <= 50:
        p = float(stats.wilcoxon(d, method="exact").pvalue)
    else:
        p = sign_flip(ranks)
    averages = walsh(differences)
    k = int((signed_rank_cdf(len(d)) <= (1 - level) / 2 * (1 + 1e-9)).sum())
    if not k:
        return math.nan, math.nan, p
    return float(averages[k - 1]), float(averages[-k]), p


def bootstrap(differences: Sequence[float], level: float) -> Interval:
    """BCa interval of the mean (Efron 1987) with a fixed seed, and the p-value of Fisher's sign flips (1935, sec. 21).

    The bootstrap has no p-value. One could take the level at which a BCa interval just touches zero. But with few pairs
    the interval is too short, because it never leaves the range of the data, and so that p-value would be too small.
    The p-value here is that of the exact test of the same mean. It only assumes that under the null hypothesis both
    signs of a difference are equally likely. So zero may lie outside the interval although p is above the level; the
    verdict uses p. Measured on normal differences (seed 1, 4000 samples each): 95 % intervals contained the mean in
    87.2 % of the samples with 6 pairs, and in 90.5 % with 10.
    """
    d = np.asarray(differences, dtype=float)
    p = sign_flip(d)
    if smallest_rank_p(len(d)) > (1 - level) * (1 + 1e-9):
        return math.nan, math.nan, p
    found = stats.bootstrap(
        (d,),
        _rounded_mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="BCa",
        random_state=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high), p


def sign_flip(values: Floats) -> float:
    """Return the two-sided p-value of the sum of ``values``, (n,), among all the 2^n ways to sign them.

    With more than 20 values it is among 2^16 ways that are drawn at random.
    """
    if len(values) <= ALL_SIGNS:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        signs = 2.0 * np.random.default_rng(0).integers(0, 2, (DRAWN_SIGNS - 1, len(values))) - 1
        sums = np.append(signs @ values, values.sum())  # the observed signs are one of them, so p is never zero
    rounding = 1e-12 * np.abs(values).sum()
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - rounding))


def _rounded_mean(x: Floats, axis: int = -1) -> Floats:
    """Return rounded means. BCa counts the means below the observed one, so rounding errors must not separate them."""
    return np.asarray(np.round(np.mean(x, axis=axis), DIGITS))


def walsh(differences: Sequence[float]) -> Floats:
    """Return the n (n + 1) / 2 means of two differences, sorted. The two may be the same difference."""
    d = np.asarray(differences, dtype=float)
    i, j = np.triu_indices(len(d))
    return np.sort((d[i] + d[j]) / 2)


def pseudo_median(differences: Sequence[float]) -> float:
    """Return Hodges and Lehmann's estimate (1963): the median of the Walsh averages."""
    return float(np.median(walsh(differences)))


def signed_rank_cdf(n: int) -> Floats:
    """Return P(V <= v) for v = 0 ... n (n + 1) / 2.

    V is the sum of the ranks 1 ... n, each of them included with probability 1/2.
    """
    chance = np.ones(1)
    for rank in range(1, n + 1):
        later = np.zeros(len(chance) + rank)
        later[: len(chance)] += chance / 2
        later[rank:] += chance / 2
        chance = later
    return np.cumsum(chance)


def _mean(differences: Sequence[float]) -> float:
    return float(np.mean(differences))


TESTS: dict[str, PairedTest] = {
    "t": PairedTest(student, _mean, "paired t-tests", "", True, lambda n: 0.0),
    "wilcoxon": PairedTest(wilcoxon, pseudo_median, "Wilcoxon signed-rank tests", "Wilcoxon", False, smallest_rank_p),
    "bootstrap": PairedTest(
        bootstrap, _mean, "sign-flip tests with bootstrap intervals", "BCa bootstrap", True, smallest_rank_p
    ),
}


def chosen(name: str) -> PairedTest:
    """Return the test with this name.

    Raises:
        ValueError: there is no such test.
    """
    if name not in TESTS:
        raise ValueError(f"test={name!r} is not known; choose one of {', '.join(TESTS)}")
    return TESTS[name]
