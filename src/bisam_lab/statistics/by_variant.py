"""Compare the methods of a study, variant by variant."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..budget import Budget
from ..run.result import RunResult, plain
from .comparison import Comparison, compare
from .cost import compared, cost_sentence, with_equal_steps
from .measures import Measured, measured
from .signatures import Shown, shown
from .verdicts import verdict

__all__ = ["Outcome", "compare_variant", "outcomes"]


@dataclass(frozen=True)
class Outcome:
    """The comparison of the methods in one variant.

    Attributes:
        variant: its name; empty in a study without variants.
        baseline: the method that the others are compared with.
        rows: one per method; empty if no run of the baseline is finished.
        verdict: the comparison in words.
        budget: unit of the budget that every method spent; None: the methods are compared at equal steps.
        cost: what the methods have spent, in words.
        signatures: the failure signatures that methods show.
        measures: what was measured beside the score, compared.
    """

    variant: str
    baseline: str
    rows: list[Comparison]
    verdict: str
    budget: str | None = None
    cost: str = ""
    signatures: list[Shown] = field(default_factory=list)
    measures: list[Measured] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. A number that is NaN becomes null."""
        values: dict[str, Any] = plain(asdict(replace(self, signatures=[])))
        return values | {"signatures": [one.to_dict() for one in self.signatures]}


def outcomes(
    results: Sequence[RunResult],
    baseline: str,
    test: str = "t",
    difference: float | None = None,
    budget: Budget | None = None,
    level: float = 0.95,
    margin: float | None = None,
) -> list[Outcome]:
    """Compare the methods in each variant that has results. See :func:`compare_variant` for the arguments."""
    return [
        compare_variant(name, results, baseline, test, difference, budget, level, margin)
        for name in dict.fromkeys(result.variant for result in results)
    ]


def compare_variant(
    variant: str,
    results: Sequence[RunResult],
    baseline: str,
    test: str = "t",
    difference: float | None = None,
    budget: Budget | None = None,
    level: float = 0.95,
    margin: float | None = None,
) -> Outcome:
    """Compare the methods in one variant. Holm's correction is over the methods of this variant only.

    Args:
        variant: its name.
        results: finished runs; those of other variants do not count.
        baseline: the method that the others are compared with.
        test: a key of ``TESTS``.
        difference: in points; the verdict says how many seeds show it.
        budget: of the study. The comparison and the verdict are then at equal cost, and the rows have both scores.
        level: confidence level of the intervals.
        margin: points that do not matter; equivalence within them is then tested, too.
    """
    budget = budget if budget is not None and variant in budget.shares else None
    unit, place = (None, "") if budget is None else (budget.unit, " at equal cost")
    runs = compared(results, variant, budget)
    if all(result.method != baseline for result in runs):
        text = f"There is no finished run of {baseline}{place}, so there is nothing to compare with."
        return Outcome(variant, baseline, [], text, unit, signatures=shown(runs, [], baseline))
    rows = compare(runs, baseline, test, level, margin)
    shows, others = shown(runs, rows, baseline), measured(runs, baseline, test, level)
    text = verdict(rows, baseline, difference)
    if budget is not None:
        rows = with_equal_steps(rows, [result for result in results if result.variant == variant], budget)
        text = f"At equal cost, in {unit}. {text}"
    return Outcome(variant, baseline, rows, text, unit, cost_sentence(rows, baseline), shows, others)
