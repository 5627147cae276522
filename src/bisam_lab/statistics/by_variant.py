"""Compare the methods of a study, variant by variant."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..run.result import RunResult, plain
from .comparison import Comparison, compare
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
    """

    variant: str
    baseline: str
    rows: list[Comparison]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. A number that is NaN becomes null."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def outcomes(
    results: Sequence[RunResult], baseline: str, test: str = "t", difference: float | None = None
) -> list[Outcome]:
    """Compare the methods in each variant that has results. See :func:`compare_variant` for the arguments."""
    return [
        compare_variant(name, [result for result in results if result.variant == name], baseline, test, difference)
        for name in dict.fromkeys(result.variant for result in results)
    ]


def compare_variant(
    variant: str, results: Sequence[RunResult], baseline: str, test: str = "t", difference: float | None = None
) -> Outcome:
    """Compare the methods in one variant. Holm's correction is over the methods of this variant only.

    Args:
        variant: its name.
        results: its finished runs.
        baseline: the method that the others are compared with.
        test: a key of ``TESTS``.
        difference: in points; the verdict says how many seeds show it.
    """
    if all(result.method != baseline for result in results):
        return Outcome(
            variant, baseline, [], f"There is no finished run of {baseline}, so there is nothing to compare with."
        )
    rows = compare(results, baseline, test)
    return Outcome(variant, baseline, rows, verdict(rows, baseline, difference))
