"""Compare each method with the baseline over their common seeds, with Holm's correction over the methods."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..run.result import RunResult
from .equivalence import Equivalence, points, tost
from .tests import chosen

__all__ = ["Comparison", "compare", "holm"]


@dataclass(frozen=True)
class Comparison:
    """One method compared with the baseline. Scores and differences are in percentage points.

    Attributes:
        method: its name.
        n: number of finished runs.
        mean: mean test score of these runs, including collapsed and diverged ones.
        std: sample standard deviation of the test score; NaN for n = 1.
        differences: method minus baseline at each common seed, sorted by seed; empty for the baseline itself.
        difference: the test's estimate of the difference: the mean, or Wilcoxon's pseudo-median; NaN for the baseline.
        low: lower end of the confidence interval of ``difference``.
        high: upper end of the confidence interval.
        p: two-sided p-value.
        p_adjusted: ``p`` after Holm's correction over all compared methods.
        speed: optimizer steps per second relative to the baseline.
        collapsed: number of runs that ended no better than chance.
        diverged: number of runs whose loss became infinite or NaN.
        test: name of the test, a key of ``TESTS``.
        level: confidence level of the interval, such as 0.95; a p-value is significant below 1 minus the level.
        metric: of the scores.
        budget: unit of the budget that every method spent, "passes" or "seconds"; None: the steps were equal instead.
        cost: of a step, in that unit; seconds are relative to a step of the plain base optimizer.
        epochs: with which the method spent the budget; None without one.
        steps_mean: mean test score at equal steps, beside ``mean``, which is then at equal cost; NaN without a budget.
        steps_std: sample standard deviation at equal steps.
        steps_failed: number of runs at equal steps that collapsed or diverged.
        equivalence: the test that the method equals the baseline within a margin; None where there is none.
        conclusion: "different", "equivalent within 0.3 points", "different, by less than 0.3 points" or "undecided";
            empty without a margin, or without a test.
    """

    method: str
    n: int
    mean: float
    std: float
    differences: tuple[float, ...]
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    speed: float
    collapsed: int
    diverged: int
    test: str
    level: float
    metric: str = "accuracy"
    budget: str | None = None
    cost: float = math.nan
    epochs: int | None = None
    steps_mean: float = math.nan
    steps_std: float = math.nan
    steps_failed: int = 0
    equivalence: Equivalence | None = None
    conclusion: str = ""

    @property
    def pairs(self) -> int:
        """Number of seeds that the baseline also has (0 for the baseline itself)."""
        return len(self.differences)

    @property
    def failed(self) -> bool:
        """Whether every run failed to train."""
        return self.collapsed + self.diverged == self.n

    @property
    def spread(self) -> float:
        """Sample standard deviation of the differences; NaN for fewer than two."""
        return float(np.std(self.differences, ddof=1)) if self.pairs > 1 else math.nan


def compare(
    results: Iterable[RunResult],
    baseline: str,
    test: str = "t",
    level: float = 0.95,
    margin: float | None = None,
) -> list[Comparison]:
    """Compare each method with ``baseline`` over the seeds that both have finished.

    Args:
        results: finished runs.
        baseline: the method that the others are compared with.
        test: a key of ``TESTS``.
        level: confidence level of the intervals.
        margin: points that do not matter; equivalence within them is then tested, too.

    Raises:
        ValueError: the baseline has no finished run, the test is unknown, the level is not between 0 and 1,
            or the margin is not positive.
    """
    by_method: dict[str, dict[int, RunResult]] = {}
    for result in results:
        by_method.setdefault(result.method, {})[result.seed] = result
    if baseline not in by_method:
        raise ValueError(
            f"baseline={baseline!r} has no finished run; there are {', '.join(by_method) or 'none at all'}"
        )
    rows = [_row(runs, by_method[baseline], baseline, test, level) for runs in by_method.values()]
    adjusted = holm([row.p for row in rows])
    rows = [replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]
    return rows if margin is None else _with_equivalence(rows, baseline, margin)


def _with_equivalence(rows: Sequence[Comparison], baseline: str, margin: float) -> list[Comparison]:
    """Return the rows with the test of equivalence of each method that has pairs.

    There is none of a method of which every run failed to train, and none at all if the baseline is such a one.
    """
    level = round(1 - rows[0].level, 12)
    tested = [row.pairs > 0 and not row.failed for row in rows]
    if any(row.failed for row in rows if row.method == baseline):
        tested = [False] * len(rows)
    found = [tost(row.differences, margin, level) if one else None for row, one in zip(rows, tested, strict=True)]
    adjusted = holm([math.nan if one is None else one.p for one in found])
    tests = [one if one is None else replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]
    return [
        replace(row, equivalence=one, conclusion=_conclusion(row, one)) for row, one in zip(rows, tests, strict=True)
    ]


def _conclusion(row: Comparison, found: Equivalence | None) -> str:
    if found is None or math.isnan(row.p_adjusted) or math.isnan(found.p_adjusted):
        return ""
    if row.p_adjusted < found.level:
        return f"different, by less than {points(found.margin)}" if found.shown else "different"
    return f"equivalent within {points(found.margin)}" if found.shown else "undecided"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's step-down adjustment (1979). NaN stays NaN and does not count as a comparison."""
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = list(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def _row(runs: dict[int, RunResult], base: dict[int, RunResult], baseline: str, test: str, level: float) -> Comparison:
    method = next(iter(runs.values())).method
    accuracy = [100 * run.test_score for run in runs.values()]
    seeds = sorted(runs.keys() & base.keys())
    alone = method == baseline
    differences = [] if alone else [100 * (runs[s].test_score - base[s].test_score) for s in seeds]
    paired = chosen(test)
    low, high, p = paired(differences, level)
    speeds = [runs[s].steps_per_second / base[s].steps_per_second for s in seeds]
    return Comparison(
        method=method,
        n=len(runs),
        mean=float(np.mean(accuracy)),
        std=float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else math.nan,
        differences=tuple(differences),
        difference=paired.estimate(differences) if differences else math.nan,
        low=low,
        high=high,
        p=p,
        p_adjusted=p,
        speed=float(np.median(speeds)) if speeds else math.nan,
        collapsed=sum(run.status == "collapsed" for run in runs.values()),
        diverged=sum(run.status == "diverged" for run in runs.values()),
        test=test,
        level=level,
        metric=next(iter(runs.values())).metric,
    )
