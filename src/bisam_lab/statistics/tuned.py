"""A small paired study in one process: each contestant tunes one number, then all meet on fresh seeds.

For what is no recipe, such as graphs and policies. All contestants try equally many values, on the same seeds; the best
mean wins. The seeds of the comparison are others.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..run.result import RunResult
from .comparison import Comparison, compare

__all__ = ["compared", "markdown", "tuned"]

#: Takes a contestant, the value of its number, and a seed; returns a score, the larger the better.
Score = Callable[[str, float, int], float]


def tuned(
    score: Score,
    grids: Mapping[str, Sequence[float]],
    *,
    tuning: Sequence[int],
    seeds: Sequence[int],
    validation: Score | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Tune each contestant on the seeds ``tuning``, and score the winner on ``seeds``.

    Args:
        score: runs a contestant once.
        grids: the values that each contestant tries, equally many.
        tuning: seeds to tune on.
        seeds: seeds to compare on.
        validation: scores a contestant while it is tuned, on examples that ``score`` does not count; None: ``score``
            itself, where each seed draws all its examples anew.
        tell: is called with a line about each contestant.

    Returns:
        A row for each contestant: method, values, tried (mean score of each value), chosen, edge, scores.

    Raises:
        ValueError: the budgets are not equal, there is nothing to try or no seed, or a seed is used twice.
    """
    if not (all(grids.values()) and tuning and seeds):
        raise ValueError(
            f"grids, tuning={[*tuning]} and seeds={[*seeds]} must each hold something, such as seeds=[0, 1]"
        )
    if len({len(values) for values in grids.values()}) != 1:
        raise ValueError(f"grids={ {name: len(values) for name, values in grids.items()} } must have one length")
    if {*tuning} & {*seeds}:
        raise ValueError(f"seeds={[*seeds]} must not be among those of the tuning, {[*tuning]}")
    rows, valid = [], validation or score
    for name, values in grids.items():
        tried = [statistics.fmean(valid(name, value, seed) for seed in tuning) for value in values]
        chosen = values[max(range(len(values)), key=lambda place: _or_least(tried[place]))]
        scores = [score(name, chosen, seed) for seed in seeds]
        edge = len(values) > 1 and chosen in (min(values), max(values))
        row = {"method": name, "values": [*values], "tried": tried, "chosen": chosen, "edge": edge, "scores": scores}
        rows.append(row)
        tell(f"{name}: {chosen:g}, {statistics.fmean(scores):.3f} over {len(scores)} seeds")
    return rows


def _or_least(number: float) -> float:
    """Return a mean score; what is no number is the worst of all, and no maximum."""
    return -math.inf if math.isnan(number) else number


def compared(rows: Sequence[Mapping[str, Any]], baseline: str) -> list[Comparison]:
    """Return each row beside the baseline, paired by seed, with Holm's correction. Scores count in hundredths."""
    runs = [
        RunResult(row["method"], seed, "ok", value, math.nan, 0, 1.0, 1.0)
        for row in rows
        for seed, value in enumerate(row["scores"])
    ]
    return compare(runs, baseline)


def markdown(rows: Sequence[Mapping[str, Any]], baselines: Sequence[str], unit: str, scale: float = 1.0) -> str:
    """Return the rows as a table of Markdown, with the difference to each baseline.

    Args:
        rows: of :func:`tuned`.
        baselines: methods to compare with.
        unit: of the scores, for the head.
        scale: what a hundredth of a score counts in this unit.
    """
    found = {name: {row.method: row for row in compared(rows, name)} for name in baselines}
    head = ["method", "chosen", unit, *(f"minus {name}" for name in baselines)]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        own = found[baselines[0]][row["method"]]
        cells = [
            row["method"],
            f"{row['chosen']:g}{' (at the edge)' if row.get('edge') else ''}" if row.get("chosen") is not None else "",
            f"{scale * own.mean:.2f} ± {scale * own.std:.2f}",
            *(_difference(found[name][row["method"]], scale) for name in baselines),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(row: Comparison, scale: float) -> str:
    if math.isnan(row.difference):
        return ""
    if math.isnan(row.low):  # no pair differs, or there is only one
        return f"{scale * row.difference:+.2f}"
    star = "*" if row.p_adjusted < 1 - row.level else ""
    return f"{scale * row.difference:+.2f}{star} [{scale * row.low:+.2f}, {scale * row.high:+.2f}]"
