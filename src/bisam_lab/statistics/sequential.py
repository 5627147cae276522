"""As many seeds as a difference needs: a comparison that is looked at after 5, 10, 20 and 40 seeds.

To test again and again at 5 % until something is significant finds differences where there are none. Here every look
spends a share of the 5 %, as large as the share of the seeds that it adds (Lan and DeMets 1983, with the spending
function alpha t of Kim and DeMets 1987): 0.625, 0.625, 1.25 and 2.5 %. A look tests at what it spends alone, Holm's
correction over the methods included. So the chance of one false claim or more is at most the sum, 5 %, by Boole's
inequality, whatever the test, the number of methods, and the reason to stop. The intervals of a look have its level:
the intervals of all looks at a method hold its true difference in 95 % of studies. Exact boundaries (Pocock's, O'Brien
and Fleming's) would reject a little more often, but they assume normal scores and one method.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .comparison import Comparison
from .power import detectable
from .verdicts import POWER

__all__ = ["LEVEL", "SEEDS", "Look", "looks", "unsettled"]

#: Chance of a false claim in the whole study.
LEVEL = 0.05
#: Seeds at the looks.
SEEDS = (5, 10, 20, 40)


@dataclass(frozen=True)
class Look:
    """One look at the study.

    Attributes:
        number: from 1.
        seeds: that every method has then.
        level: of its tests: the share of :data:`LEVEL` that it spends.
    """

    number: int
    seeds: int
    level: float

    @property
    def last(self) -> bool:
        """Whether there is none after it."""
        return self.seeds == SEEDS[-1]

    def largest_spread(self, difference: float, tests: int) -> float:
        """Return the largest spread with which the look shows a difference in 80 % of studies, by a paired t-test.

        Args:
            difference: in points.
            tests: number of methods that are compared with the baseline.
        """
        return difference / detectable(1.0, self.seeds, POWER, self.level / max(1, tests))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "looks": len(SEEDS), "most_seeds": SEEDS[-1]}

    def __str__(self) -> str:
        return f"look {self.number} of {len(SEEDS)}, {self.seeds} seeds, at the {100 * self.level:g} % level"


def looks() -> tuple[Look, ...]:
    """Return all looks, in order."""
    before = (0, *SEEDS)
    return tuple(
        Look(k, n, LEVEL * (n - m) / SEEDS[-1]) for k, (m, n) in enumerate(zip(before, SEEDS, strict=False), start=1)
    )


def unsettled(rows: Sequence[Comparison], baseline: str, look: Look, difference: float) -> list[str]:
    """Return the methods that need more seeds.

    A method is settled if it differs from the baseline at the look's level, or if the look shows a difference of the
    given size in 80 % of studies with the spread that its differences have. Of methods that failed to train in every
    run more seeds say nothing.

    Args:
        rows: what :func:`.compare` returned for the look's seeds, at the look's level.
        baseline: the method that the others are compared with.
        look: how many seeds there are, and at what level they are tested.
        difference: in points.
    """
    failed = {row.method for row in rows if row.failed}
    if baseline in failed:
        return []
    largest = look.largest_spread(difference, sum(not math.isnan(row.p) for row in rows))
    return [
        row.method
        for row in rows
        if row.method != baseline
        and row.method not in failed
        and not (row.p_adjusted < look.level or row.spread <= largest)
    ]
