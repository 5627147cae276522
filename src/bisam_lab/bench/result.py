"""The results of a bench, as plain values."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MemoryUse", "PassesPerStep", "Report", "Row", "quartiles"]


@dataclass(frozen=True)
class PassesPerStep:
    """Passes of a mean step, in passes over the whole batch.

    Attributes:
        low: forward-backward passes, the fewest by definition.
        high: the most by definition. Counted passes have ``low == high``.
        forward: passes without backward.
    """

    low: float
    high: float
    forward: float = 0.0

    def __str__(self) -> str:
        pairs = f"{self.low:.3g}" if self.low == self.high else f"{self.low:.3g} to {self.high:.3g}"
        return pairs + (f" + {self.forward:.3g} forward" if self.forward else "")


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of tensors: of the network, the optimizer and the steps, without the batches.

    Attributes:
        peak: the most at one time during the steps of a cycle.
        kept: between two steps.
    """

    peak: int
    kept: int


@dataclass(frozen=True)
class Row:
    """One contestant, relative to the base optimizer.

    Attributes:
        name: of the method, or of the peer's class.
        peer: its package and version; None for this one.
        error: why there is no measurement, in one sentence.
        expected: passes of a step by the method's definition; None if unknown.
        passes: counted in the timed steps.
        seconds: of a mean step, one per round.
        ratios: of these seconds to those of the base optimizer, timed just before.
        memory: of the contestant.
        extra_peak: bytes of its peak minus those of the base optimizer.
        extra_kept: bytes that it keeps between steps, minus those of the base optimizer.
    """

    name: str
    peer: str | None = None
    error: str | None = None
    expected: PassesPerStep | None = None
    passes: PassesPerStep | None = None
    seconds: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    memory: MemoryUse | None = None
    extra_peak: int | None = None
    extra_kept: int | None = None

    def quartiles(self) -> tuple[float, float, float]:
        """Return first quartile, median and third quartile of the ratios."""
        return quartiles(self.ratios)


@dataclass(frozen=True)
class Report:
    """The whole result of a bench.

    Attributes:
        recipe: its name.
        model: the network's name.
        parameters: number of trainable weights.
        weights: their bytes.
        batch: samples in a batch.
        precision: of the recipe.
        optimizer: the recipe's name of the base optimizer.
        rounds: how often each contestant was timed.
        steps: in a measurement; rounded up to whole cycles of a method.
        seconds: of a mean step of the base optimizer, one per measurement.
        memory: of the base optimizer.
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
    memory: MemoryUse
    machine: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def steps_per_second(self) -> float:
        """Steps of the base optimizer in a second, median."""
        return 1 / statistics.median(self.seconds)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
