"""What a bench has measured, as plain values."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Memory", "Passes", "Report", "Row", "quartiles"]


@dataclass(frozen=True)
class Passes:
    """Passes of a mean step, in passes over the whole batch.

    Attributes:
        low: forward-backward passes; in theory the fewest.
        high: the most; of what was counted the same as ``low``.
        forward: passes forward alone.
    """

    low: float
    high: float
    forward: float = 0.0

    def __str__(self) -> str:
        pairs = f"{self.low:.3g}" if self.low == self.high else f"{self.low:.3g} to {self.high:.3g}"
        return pairs + (f" + {self.forward:.3g} forward" if self.forward else "")


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors: the model, the optimizer and what a step makes; not the batches.

    Attributes:
        peak: the most that was there at once during the steps of a cycle.
        kept: what is there between two steps.
    """

    peak: int
    kept: int


@dataclass(frozen=True)
class Row:
    """One contestant beside the base optimizer.

    Attributes:
        name: method, or the peer's class.
        peer: the package that it comes from, with its version; None is ours.
        error: why there is no measurement, in a sentence.
        expected: what a step should cost by the method's definition; None where that is not ours to say.
        passes: counted, over the steps that were timed.
        seconds: of a mean step, round by round.
        ratios: the same over the base optimizer's, timed just before.
        memory: of the contestant.
        extra_peak: bytes of its peak beyond the base optimizer's.
        extra_kept: bytes of what it keeps from step to step beyond the base optimizer's.
    """

    name: str
    peer: str | None = None
    error: str | None = None
    expected: Passes | None = None
    passes: Passes | None = None
    seconds: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    memory: Memory | None = None
    extra_peak: int | None = None
    extra_kept: int | None = None

    def quartiles(self) -> tuple[float, float, float]:
        """Return first quartile, median and third quartile of the ratios."""
        return quartiles(self.ratios)


@dataclass(frozen=True)
class Report:
    """All of a bench.

    Attributes:
        recipe: its name.
        model: the network's name.
        parameters: how many numbers it learns.
        weights: their bytes.
        batch: samples.
        precision: as the recipe says.
        optimizer: the base optimizer, by the recipe's name.
        rounds: how often everything was timed.
        steps: steps of a measurement; a method that works in cycles takes whole ones.
        seconds: of the base optimizer's mean step, each time that it was timed.
        memory: the base optimizer's.
        machine: hardware and versions.
        rows: the contestants.
    """

    recipe: str
    model: str
    parameters: int
    weights: int
    batch: int
    precision: str
    optimizer: str
    rounds: int
    steps: int
    seconds: tuple[float, ...]
    memory: Memory
    machine: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def steps_per_second(self) -> float:
        """The base optimizer's, in the median."""
        return 1 / statistics.median(self.seconds)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
