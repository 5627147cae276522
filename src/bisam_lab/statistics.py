"""Paired comparison of methods over seeds: means, intervals, p-values, and a verdict in one sentence."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .result import RunResult

__all__ = ["Comparison", "compare", "holm", "paired", "verdict"]


@dataclass(frozen=True)
class Comparison:
    """One method against the baseline; accuracies and differences in percentage points.

    Attributes:
        method: its name.
        n: finished runs.
        mean: of the test accuracy over them, collapsed and diverged ones included.
        std: sample standard deviation; NaN for n = 1.
        pairs: seeds that the baseline has too.
        difference: mean over the pairs of method minus baseline; NaN for the baseline itself.
        low: lower end of the 95 % interval of the difference (Student, paired).
        high: upper end.
        p: two-sided paired t-test.
        p_adjusted: ``p`` after Holm's correction over all the methods compared.
        speed: optimizer steps per second relative to the baseline.
        collapsed: runs that ended no better than chance.
        diverged: runs whose loss left the numbers.
    """

    method: str
    n: int
    mean: float
    std: float
    pairs: int
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    speed: float
    collapsed: int
    diverged: int


def compare(results: Iterable[RunResult], baseline: str) -> list[Comparison]:
    """Compare every method with ``baseline`` over the seeds that both have finished.

    Raises:
        ValueError: the baseline has no finished run.
    """
    by_method: dict[str, dict[int, RunResult]] = {}
    for result in results:
        by_method.setdefault(result.method, {})[result.seed] = result
    if baseline not in by_method:
        raise ValueError(
            f"baseline={baseline!r} has no finished run; there are {', '.join(by_method) or 'none at all'}"
        )
    base = by_method[baseline]
    rows = [_row(method, runs, base, baseline) for method, runs in by_method.items()]
    adjusted = holm([row.p for row in rows])
    return [replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def paired(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Interval of the mean and two-sided p of the paired t-test; NaN for fewer than two pairs, or without spread."""
    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        return math.nan, math.nan, math.nan
    if np.ptp(d) < 1e-9:  # no spread but that of rounding: the t statistic is 0/0 or infinite
        return math.nan, math.nan, math.nan
    test = stats.ttest_1samp(d, 0.0)
    low, high = test.confidence_interval(level)
    return float(low), float(high), float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979); NaN stays NaN and does not count as a comparison."""
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = list(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def verdict(rows: Sequence[Comparison], baseline: str, level: float = 0.05) -> str:
    """Say in one sentence which methods differ from the baseline, and which do not."""
    failed = {row.method for row in rows if row.collapsed + row.diverged == row.n}
    if baseline in failed:
        return f"Nothing can be compared: every run of {baseline} failed to train (collapsed or diverged)."
    others = [row for row in rows if row.method != baseline and row.method not in failed]
    few = [row.method for row in others if row.pairs < 2]
    flat = [row.method for row in others if row.pairs >= 2 and math.isnan(row.p_adjusted)]
    better = [row for row in others if row.p_adjusted < level and row.difference > 0]
    worse = [row for row in others if row.p_adjusted < level and row.difference < 0]
    same = [row.method for row in others if row.p_adjusted >= level]
    parts = []
    for group, word in ((better, "better"), (worse, "worse")):
        if group:
            each = ", ".join(f"{r.method} ({r.difference:+.2f} [{r.low:+.2f}, {r.high:+.2f}])" for r in group)
            parts.append(f"{word} than {baseline}: {each}")
    if same:
        parts.append(f"no evidence of a difference to {baseline}: {_list(same)}")
    if few:
        parts.append(f"too few pairs to say anything: {_list(few)}")
    if flat:
        parts.append(f"the same difference to {baseline} at every seed, so no test is possible: {_list(flat)}")
    if failed:
        parts.append(f"every run failed to train, so nothing is claimed of {_list(sorted(failed))}")
    if not parts:
        return f"There is nothing to compare with {baseline}."
    broken = [f"{row.collapsed} of {row.method} (collapsed)" for row in rows if row.collapsed]
    broken += [f"{row.diverged} of {row.method} (diverged)" for row in rows if row.diverged]
    counted = f"; counted in the means, though they failed to train: {_list(broken)}" if broken else ""
    text = "; ".join(parts)
    pairs = [row.pairs for row in others if not math.isnan(row.p_adjusted)]
    seeds = f"{min(pairs)}" if pairs and min(pairs) == max(pairs) else f"{min(pairs)} to {max(pairs)}" if pairs else ""
    tested = f" (paired t-tests over {seeds} seeds at the {100 * level:g} % level, Holm-adjusted)" if pairs else ""
    return f"{text[0].upper()}{text[1:]}{tested}{counted}."


def _row(method: str, runs: dict[int, RunResult], base: dict[int, RunResult], baseline: str) -> Comparison:
    accuracy = [100 * run.test_score for run in runs.values()]
    seeds = sorted(runs.keys() & base.keys())
    differences = [100 * (runs[s].test_score - base[s].test_score) for s in seeds] if method != baseline else []
    low, high, p = paired(differences)
    speeds = [runs[s].steps_per_second / base[s].steps_per_second for s in seeds]
    return Comparison(
        method=method,
        n=len(runs),
        mean=float(np.mean(accuracy)),
        std=float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else math.nan,
        pairs=len(seeds),
        difference=float(np.mean(differences)) if differences else math.nan,
        low=low,
        high=high,
        p=p,
        p_adjusted=p,
        speed=float(np.median(speeds)) if speeds else math.nan,
        collapsed=sum(run.status == "collapsed" for run in runs.values()),
        diverged=sum(run.status == "diverged" for run in runs.values()),
    )


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
