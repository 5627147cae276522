"""What survives, compared: each quantity of each measure, paired by seed as the scores are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..registry.measures import MEASURES, Quantity
from ..run.result import RunResult
from .comparison import Comparison, compare

__all__ = ["Measured", "measured"]


@dataclass(frozen=True)
class Measured:
    """A quantity, compared.

    Attributes:
        measure: a key of ``MEASURES``.
        quantity: key of one of its quantities.
        label: of the numbers, with their unit.
        digits: behind the decimal point.
        rows: one per method; mean, difference and interval are in the label's unit.
    """

    measure: str
    quantity: str
    label: str
    digits: int
    rows: list[Comparison]


def measured(runs: Sequence[RunResult], baseline: str, test: str = "t", level: float = 0.95) -> list[Measured]:
    """Compare all that was measured of the runs. Holm's correction is over the methods, for each quantity by itself.

    Args:
        runs: finished ones; those that lack a measure do not count there.
        baseline: the method that the others are compared with; a quantity that no run of it has is left out.
        test: a key of ``TESTS``.
        level: confidence level of the intervals.
    """
    found = []
    for name, quantity in _quantities():
        its = [_as_score(run, run.measures[name][quantity.key], quantity) for run in runs if _has(run, name, quantity)]
        if any(run.method == baseline for run in its):
            rows = compare(its, baseline, test, level)
            found.append(Measured(name, quantity.key, quantity.label, quantity.digits, rows))
    return found


def _quantities() -> Iterator[tuple[str, Quantity]]:
    for measure in MEASURES.values():
        for quantity in measure.quantities:
            yield measure.name, quantity


def _has(run: RunResult, name: str, quantity: Quantity) -> bool:
    return quantity.key in run.measures.get(name, {})


def _as_score(run: RunResult, value: float, quantity: Quantity) -> RunResult:
    """Return the run with a quantity in the place of its score: what compares scores, compares it, times 100."""
    return replace(run, test_score=value * quantity.scale / 100 if math.isfinite(value) else math.nan)
