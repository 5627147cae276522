"""Tests of paired differences, as data: each gives an estimate, an interval of it and a two-sided p.

========== ===================== =============================== ================================== ================
name       estimate              interval                        p                                  it assumes
========== ===================== =============================== ================================== ================
t          mean                  Student, paired                 Student, paired                    normal
wilcoxon   Hodges-Lehmann        order statistics of the Walsh   signed ranks, exact                symmetric
           pseudo-median         averages
bootstrap  mean                  BCa, 9999 resamples             sign flips, exact to 20 pairs      symmetric (p)
========== ===================== =============================== ================================== ================

A difference is in percentage points; what differs by less than 1e-9 of them is equal. Without two pairs, without spread
or with a score that is no number there is no test: NaN throughout. The two tests without normality can call nothing
significant at the 5 % level with fewer than six pairs, for two of 2^n equally likely outcomes are as extreme as the
most extreme one; their intervals are then NaN, for none within the data holds the level (:func:`smallest_rank_p`).
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
DIGITS = 9  # of a percentage point; below lies rounding
RESAMPLES = 9_999
ALL_SIGNS = 20  # pairs up to which all signs are tried
DRAWN_SIGNS = 2**16  # and how many are drawn beyond, with a fixed seed


@dataclass(frozen=True)
class PairedTest:
    """A test of paired differences.

    Attributes:
        run: (differences, level) to the interval's ends and the two-sided p.
        estimate: what the interval is of.
        words: its name in a sentence, in the plural.
        mark: what the column of intervals is called after, empty for Student's.
        mean: whether the estimate is the mean.
        smallest_p: of n pairs; a test that cannot fall below the level shows nothing, whatever the differences.
    """

    run: Callable[[Sequence[float], float], Interval]
    estimate: Callable[[Sequence[float]], float]
    words: str
    mark: str
    mean: bool
    smallest_p: Callable[[int], float]

    def interval(self, level: float = 0.95) -> str:
        """Return what its interval is called: the level, and the test where it is not Student's."""
        return f"{100 * level:g} % interval" + (f" ({self.mark})" if self.mark else "")

    def __call__(self, differences: Sequence[float], level: float = 0.95) -> Interval:
        """Return (low, high, p); NaN where there is no such thing.

        Raises:
            ValueError: the level is no share between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level!r} must lie between 0 and 1; 0.95 is a 95 % interval")
        d = np.asarray(differences, dtype=float)
        if len(d) < 2 or not np.isfinite(d).all() or np.ptp(d) < 10**-DIGITS:
            return NOTHING
        return self.run(differences, level)


def smallest_rank_p(n: int) -> float:
    """Return the p of n differences of one sign: two of the 2^n ways to sign them are as extreme.

    As the range of n draws misses the centre of a symmetric distribution as often, it also says which intervals can be.
    """
    return float(2.0 ** (1 - n))


def student(differences: Sequence[float], level: float) -> Interval:
    """Student's paired t (1908): interval of the mean, and p; one follows from the other."""
    test = stats.ttest_1samp(np.asarray(differences, dtype=float), 0.0)
    low, high = test.confidence_interval(level)
    return float(low), float(high), float(test.pvalue)


def wilcoxon(differences: Sequence[float], level: float) -> Interval:
    """Wilcoxon's signed-rank test (1945), with the interval of the pseudo-median that inverts it.

    p is exact. Zeros are dropped (Wilcoxon's rule); with ties or zeros the signs of the (mid-)ranks are flipped instead
    of a table being read. The ends are the k-th Walsh average from below and from above, k as large as the exact
    distribution without ties lets the level hold (Hollander and Wolfe 1973, ch. 3); without ties and zeros zero lies
    outside exactly if p <= 1 - level. With them the closed interval holds the level all the more (Noether 1967), and
    may hold zero where p is small.
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
    """BCa interval of the mean (Efron 1987) with a fixed seed, and the p of Fisher's sign flips (1935, section 21).

    The bootstrap has no p of its own, and the level at which a BCa interval just touches zero inherits what the
    interval lacks: with few pairs it is too short, for it never leaves the range of the data. p is therefore that of
    the exact test of the same mean, whose only assumption is that under the null either sign of a difference is as
    likely. So zero may lie outside an interval whose p is above the level; the verdict goes by p. Measured on normal
    differences (seed 1, 4000 samples each): 95 % intervals held the mean in 87.2 % with 6 pairs, in 90.5 % with 10.
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
    """Two-sided p of the sum of ``values``, (n,), among all the 2^n ways to sign them; beyond 20, among 2^16 drawn."""
    if len(values) <= ALL_SIGNS:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        signs = 2.0 * np.random.default_rng(0).integers(0, 2, (DRAWN_SIGNS - 1, len(values))) - 1
        sums = np.append(signs @ values, values.sum())  # the signs observed are one of them, so p is never zero
    rounding = 1e-12 * np.abs(values).sum()
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - rounding))


def _rounded_mean(x: Floats, axis: int = -1) -> Floats:
    """Means in which those that differ by rounding alone are equal, for BCa counts how many lie below the observed."""
    return np.asarray(np.round(np.mean(x, axis=axis), DIGITS))


def walsh(differences: Sequence[float]) -> Floats:
    """Return the n (n + 1) / 2 means of two differences, one and the same included, in order."""
    d = np.asarray(differences, dtype=float)
    i, j = np.triu_indices(len(d))
    return np.sort((d[i] + d[j]) / 2)


def pseudo_median(differences: Sequence[float]) -> float:
    """Hodges and Lehmann's estimate (1963): the median of the Walsh averages."""
    return float(np.median(walsh(differences)))


def signed_rank_cdf(n: int) -> Floats:
    """Return P(V <= v) for v = 0 ... n (n + 1) / 2, where V sums those of the ranks 1 ... n whose coin shows heads."""
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
    """Return the test of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in TESTS:
        raise ValueError(f"test={name!r} is not known; choose one of {', '.join(TESTS)}")
    return TESTS[name]
