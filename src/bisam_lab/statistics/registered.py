"""What the runs say of the hypotheses that were stated before the first of them.

A hypothesis is about the mean d of the paired differences, and a margin m:

=========== ============== ===================================== ==============================================
direction   states         interval shown (level 95 %)           p-value
=========== ============== ===================================== ==============================================
greater     d > m          95 %, of a mean                       of the t-test of d = m, two-sided
less        d < -m         95 %                                  of the t-test of d = -m, two-sided
equivalent  -m < d < m     90 %, of two one-sided tests          of these tests (TOST) where the mean lies within m;
                                                                 else of the t-test of d = m or d = -m, two-sided
=========== ============== ===================================== ==============================================

It is confirmed if p after Holm's correction over the hypotheses is below 5 % and the mean lies where it says, refuted
if p is and the mean lies elsewhere, undecided otherwise. So either error is made in at most 5 % of studies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..budget import Budget
from ..recipe import Hypothesis
from ..run.result import RunResult
from .comparison import holm
from .cost import compared
from .equivalence import NO_SPREAD, points, tost

__all__ = ["Decided", "decided", "decision_words"]

Decision: TypeAlias = Literal["confirmed", "refuted", "undecided"]
Pair: TypeAlias = tuple[RunResult, RunResult]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decided:
    """A hypothesis, and what the runs say of it. Differences are in percentage points.

    Attributes:
        says: the hypothesis in words.
        states: the same as an inequality.
        variant: of the runs; empty in a study without variants.
        decision: confirmed, refuted or undecided.
        n: pairs of runs.
        difference: mean of method minus baseline; NaN without pairs.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        level: of the interval: 0.95, or 0.9 of two one-sided tests.
        p: adjusted p-value; NaN without a test.
        why: it is undecided, where that is not for the p-value; empty otherwise.
    """

    says: str
    states: str
    variant: str
    decision: Decision
    n: int
    difference: float
    low: float
    high: float
    level: float
    p: float
    why: str = ""


def decided(
    hypotheses: Sequence[Hypothesis],
    results: Sequence[RunResult],
    stopping: int | str | None = None,
    first_seed: int = 0,
    budget: Budget | None = None,
    level: float = 0.05,
) -> list[Decided]:
    """Decide hypotheses by finished runs.

    Holm's correction is over all that were stated, also those that have no test yet: else each could be decided alone
    before the others have run.

    Args:
        hypotheses: of the recipe.
        results: finished runs of the study.
        stopping: a number of seeds decides with these seeds, the first ones; with fewer there is no decision. A rule in
            words is for the reader.
        first_seed: of the study.
        budget: of the study; the runs at equal cost then count, and the statement says so.
        level: of the tests.
    """
    found = [_tested(one, _pairs(one, results, stopping, first_seed, budget), stopping, level) for one in hypotheses]
    found = [replace(one, states=f"{one.states}{_cost(one.variant, budget)}") for one in found]
    adjusted = holm([1.0 if math.isnan(one.p) else one.p for one in found])
    return [_judged(one, p, h, level) for one, p, h in zip(found, adjusted, hypotheses, strict=True)]


def _pairs(
    one: Hypothesis, results: Sequence[RunResult], stopping: int | str | None, first: int, budget: Budget | None
) -> list[Pair]:
    """Return the runs of method and baseline, seed by seed."""
    runs = compared(results, one.variant, budget)
    mine, base = ({run.seed: run for run in runs if run.method == name} for name in (one.method, one.baseline))
    seeds = sorted(mine.keys() & base.keys())
    if isinstance(stopping, int):
        seeds = [seed for seed in seeds if first <= seed < first + stopping]
    return [(mine[seed], base[seed]) for seed in seeds]


def _tested(one: Hypothesis, pairs: Sequence[Pair], stopping: int | str | None, level: float) -> Decided:
    d = np.array([100 * (mine.test_score - base.test_score) for mine, base in pairs])
    mean = float(d.mean()) if len(d) else math.nan
    nan, interval = math.nan, round(1 - level, 12)
    blank = Decided(one.says, _states(one), one.variant, "undecided", len(d), mean, nan, nan, interval, nan)
    if isinstance(stopping, int) and len(d) < stopping:
        return replace(blank, why=f"it stops at {stopping} seeds, and {len(d)} are there")
    if len(d) < 2:
        return replace(blank, why="a test needs two pairs")
    if all(run.status != "ok" for pair in pairs for run in pair):
        return replace(blank, why="every run of both failed to train")
    if not np.isfinite(d).all():
        return replace(blank, why="a score is no number")
    if np.ptp(d) < NO_SPREAD:
        return replace(blank, why="the same difference at every seed, so no test is possible")
    if one.direction == "equivalent":
        return _equivalent(one, d, blank, level)
    test = stats.ttest_1samp(d, one.margin if one.direction == "greater" else -one.margin)
    low, high = test.confidence_interval(1 - level)
    return replace(blank, low=float(low), high=float(high), p=float(test.pvalue))


def _equivalent(one: Hypothesis, d: Floats, blank: Decided, level: float) -> Decided:
    both = tost(d.tolist(), one.margin, level)
    outside = stats.ttest_1samp(d, math.copysign(one.margin, blank.difference))
    p = both.p if abs(blank.difference) < one.margin else float(outside.pvalue)
    return replace(blank, low=both.low, high=both.high, level=round(1 - 2 * level, 12), p=p)


def _judged(found: Decided, p: float, one: Hypothesis, level: float) -> Decided:
    if math.isnan(found.p):
        return found
    if not p < level:
        return replace(found, p=p)
    mean, m = found.difference, one.margin
    true = {"greater": mean > m, "less": mean < -m, "equivalent": abs(mean) < m}[one.direction]
    return replace(found, p=p, decision="confirmed" if true else "refuted")


def _cost(variant: str, budget: Budget | None) -> str:
    """Return at what cost the methods are compared, unless they are at equal steps."""
    return f", at equal cost in {budget.unit}" if budget is not None and variant in budget.shares else ""


def _states(one: Hypothesis) -> str:
    """Return the hypothesis as an inequality."""
    if one.direction == "equivalent":
        return f"{one.method} is within {points(one.margin)} of {one.baseline}"
    word = "above" if one.direction == "greater" else "below"
    more = f"more than {points(one.margin)} " if one.margin else ""
    return f"{one.method} is {more}{word} {one.baseline}"


def decision_words(one: Decided) -> str:
    """Say what was stated and what came out, in one line."""
    place = f"{one.variant}: " if one.variant else ""
    said = f"{one.decision.capitalize()}: {place}{one.states}."
    if one.why:
        return f"{said} {one.why[0].upper()}{one.why[1:]}."
    p = "p < 0.0001" if one.p < 1e-4 else f"p = {one.p:.4f}"
    interval = f"[{one.low:+.2f}, {one.high:+.2f}]"
    return f"{said} {one.difference:+.2f} points {interval} ({100 * one.level:g} % interval), {p}, n = {one.n}."
