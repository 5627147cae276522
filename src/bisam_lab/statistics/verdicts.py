"""The verdict: which methods differ from the baseline, which do not, and what these seeds could have shown."""

import math
from collections.abc import Sequence

import numpy as np

from .comparison import Comparison, holm
from .equivalence import points
from .power import detectable, seeds_needed
from .tests import chosen

__all__ = ["verdict"]

POWER = 0.8
#: Seeds below which the spread is known too badly to say what the seeds could have shown, or how many are needed.
ENOUGH_FOR_POWER = 5


def verdict(rows: Sequence[Comparison], baseline: str, difference: float | None = None) -> str:
    """Say which methods differ from the baseline and which do not, and what these seeds could have shown.

    The second sentence does not use the observed differences, only their spread, which it takes for the true one. The
    spread is estimated from the same pairs, and few pairs estimate it badly (see :mod:`.power`). The sentence says what
    the paired t-test would show at the level that Holm's correction leaves when no other method differs; hence the "at
    least" with several methods. Among the methods without evidence of a difference, it is about the one whose smallest
    detectable difference is the largest. Below five seeds nothing is said of this: with four pairs the true
    spread may be 0.6 to 3.7 times the estimate (95 % interval by chi-squared), and a number of seeds is off by about
    the square of that.

    Args:
        rows: what :func:`compare` returned.
        baseline: the method that the others are compared with.
        difference: in points; the verdict says how many seeds show it. By default half of what these seeds could show.

    Raises:
        ValueError: the difference is not positive.
    """
    if difference is not None and not 0 < difference < math.inf:
        raise ValueError(
            f"difference={difference!r} must be positive and finite: the points that matter to you, such as 0.5"
        )
    failed = {row.method for row in rows if row.failed}
    if baseline in failed:
        return f"Nothing can be compared: every run of {baseline} failed to train (collapsed or diverged)."
    others = [row for row in rows if row.method != baseline and row.method not in failed]
    same = _undecided(rows, others)
    parts = _differing(others, baseline)
    if same:
        parts.append(f"no evidence of a difference to {baseline}: {_list([row.method for row in same])}")
    parts += _untested(rows, others, baseline)
    if failed:
        parts.append(f"every run failed to train, so nothing is claimed of {_list(sorted(failed))}")
    if not parts:
        return f"There is nothing to compare with {baseline}."
    text = "; ".join(parts)
    could = _could_have(rows, same, difference) if same else ""
    said = f"{text[0].upper()}{text[1:]}{_tested(rows, others)}{_counted(rows)}. {equality(others, baseline)}"
    return f"{said.rstrip()} {could}".rstrip()


def equality(others: Sequence[Comparison], baseline: str) -> str:
    """Say which methods are shown to be the baseline's equals within the margin; empty without a margin."""
    tests = {row.method: row.equivalence for row in others if row.equivalence is not None}
    if not tests:
        return ""
    first = next(iter(tests.values()))
    shown = [name for name, one in tests.items() if one.shown]
    said = f"Equivalent to {baseline}" if shown else f"No method is shown to be equivalent to {baseline}"
    names = f": {_list(shown)}" if shown else ""
    by = f"two one-sided paired t-tests at the {_percent(first.level)} level, Holm-adjusted"
    return f"{said} within {points(first.margin)}{names} ({by})."


def _differing(others: Sequence[Comparison], baseline: str) -> list[str]:
    parts = []
    for sign, word in ((1, "better"), (-1, "worse")):
        group = [row for row in others if row.p_adjusted < _level(row) and sign * _direction(row) > 0]
        if group:
            each = ", ".join(f"{row.method} ({_with_interval(row)})" for row in group)
            parts.append(f"{word} than {baseline}: {each}")
    return parts


def _untested(rows: Sequence[Comparison], others: Sequence[Comparison], baseline: str) -> list[str]:
    """Return the methods of which the test can say nothing, with the reasons."""
    parts = []
    few = [row.method for row in others if row.pairs < 2]
    unknown = [row.method for row in others if row.pairs >= 2 and not np.isfinite(row.differences).all()]
    constant = [row.method for row in others if row.pairs >= 2 and math.isnan(row.p) and row.method not in unknown]
    mute = [row for row in others if _mute(row, rows)]
    if mute:
        parts.append(
            f"{chosen(mute[0].test).words} cannot reach the {_percent(_level(mute[0]))} level with "
            f"{_range([row.pairs for row in mute])} seeds, {_seeds_of_rank_test(mute[0], rows)} are the fewest "
            f"that can, so nothing is said of {_list([row.method for row in mute])}"
        )
    if few:
        parts.append(f"too few pairs to say anything: {_list(few)}")
    if constant:
        parts.append(f"the same difference to {baseline} at every seed, so no test is possible: {_list(constant)}")
    if unknown:
        parts.append(f"a score that is no number, so no test is possible: {_list(unknown)}")
    return parts


def _undecided(rows: Sequence[Comparison], others: Sequence[Comparison]) -> list[Comparison]:
    return [row for row in others if row.p_adjusted >= _level(row) and not _mute(row, rows)]


def _mute(row: Comparison, rows: Sequence[Comparison]) -> bool:
    """Whether the adjusted p-value cannot fall below the level with the pairs that the methods have."""
    least = holm([math.nan if math.isnan(r.p) else chosen(r.test).smallest_p(r.pairs) for r in rows])
    return least[[r.method for r in rows].index(row.method)] >= _level(row)


def _seeds_of_rank_test(row: Comparison, rows: Sequence[Comparison]) -> int:
    """Return the smallest number of seeds, the same for all methods, with which the test can reach the level."""
    n = row.pairs
    while chosen(row.test).smallest_p(n) * _tests(rows) >= _level(row):
        n += 1
    return n


def _could_have(rows: Sequence[Comparison], same: Sequence[Comparison], difference: float | None) -> str:
    if min(row.pairs for row in same) < ENOUGH_FOR_POWER:
        if difference is None:
            return ""
        return f"How many seeds {difference:g} points need is not said below {ENOUGH_FOR_POWER} seeds."
    level = _level(same[0]) / _tests(rows)
    seen = {row.method: detectable(row.spread, row.pairs, POWER, level) for row in same}
    worst = max(same, key=lambda row: seen[row.method])
    size = seen[worst.method]
    wanted = size / 2 if difference is None else difference
    seeds = max(seeds_needed(row.spread, wanted, POWER, level) for row in same)
    least = "at least " if _tests(rows) > 1 else ""
    by = "" if worst.test == "t" else ", by a t-test"
    what = "half of that needs" if difference is None else f"{wanted:g} points need"
    return (
        f"If the spread is what it is here, {worst.pairs} seeds show a difference of {_points(size)} points in "
        f"{least}{_percent(POWER)} of studies{by}; {what} {seeds:,} seeds."
    )


def _tested(rows: Sequence[Comparison], others: Sequence[Comparison]) -> str:
    tested = [row for row in others if not math.isnan(row.p_adjusted) and not _mute(row, rows)]
    if not tested:
        return ""
    seeds, level = _range([row.pairs for row in tested]), _percent(_level(tested[0]))
    return f" ({chosen(tested[0].test).words} over {seeds} seeds at the {level} level, Holm-adjusted)"


def _counted(rows: Sequence[Comparison]) -> str:
    broken = [f"{row.collapsed} of {row.method} (collapsed)" for row in rows if row.collapsed]
    broken += [f"{row.diverged} of {row.method} (diverged)" for row in rows if row.diverged]
    return f"; counted in the means, though they failed to train: {_list(broken)}" if broken else ""


def _tests(rows: Sequence[Comparison]) -> int:
    return sum(not math.isnan(row.p) for row in rows)


def _direction(row: Comparison) -> float:
    """Return the estimate. If it is zero although the test rejects (many zeros, the rest of one sign), the mean."""
    return row.difference or float(np.mean(row.differences))


def _with_interval(row: Comparison) -> str:
    interval = "" if math.isnan(row.low) else f" [{row.low:+.2f}, {row.high:+.2f}]"
    return f"{row.difference:+.2f}{interval}"


def _level(row: Comparison) -> float:
    return round(1 - row.level, 12)


def _points(size: float) -> str:
    return f"{size:.1f}" if size >= 1 else f"{size:.2g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
