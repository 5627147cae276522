"""What came out of a study: the methods compared, variant by variant."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..run.result import RunResult, plain
from .comparison import Comparison, compare
from .verdicts import verdict

__all__ = ["Outcome", "compare_variant", "outcomes"]


@dataclass(frozen=True)
class Outcome:
    """The comparison of the methods in one variant; ``rows`` is empty where no run of the baseline is finished."""

    variant: str
    baseline: str
    rows: list[Comparison]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; what cannot be told is null."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def outcomes(
    results: Sequence[RunResult], baseline: str, test: str = "t", difference: float | None = None
) -> list[Outcome]:
    """Compare the methods in every variant that has results, as :func:`compare_variant` does."""
    return [
        compare_variant(name, [result for result in results if result.variant == name], baseline, test, difference)
        for name in dict.fromkeys(result.variant for result in results)
    ]


def compare_variant(
    variant: str, results: Sequence[RunResult], baseline: str, test: str = "t", difference: float | None = None
) -> Outcome:
    """Compare the methods in one variant, over whose methods alone Holm's correction is.

    Args:
        variant: its name.
        results: its finished runs.
        baseline: what the others are compared with.
        test: a key of ``TESTS``.
        difference: points whose number of seeds the verdict is to tell.
    """
    if all(result.method != baseline for result in results):
        return Outcome(
            variant, baseline, [], f"There is no finished run of {baseline}, so there is nothing to compare with."
        )
    rows = compare(results, baseline, test)
    return Outcome(variant, baseline, rows, verdict(rows, baseline, difference))
