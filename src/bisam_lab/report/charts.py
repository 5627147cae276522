"""The two charts of a comparison, before they are drawn: their data, scales, labels and colours.

:mod:`.svg` draws them on the page, :mod:`.png` in the figure of the study's folder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..registry.metrics import metric_name
from ..run.result import Epoch, RunResult
from ..statistics import Comparison
from .block import Block, Curve, Quantity
from .scale import Scale
from .words import short

__all__ = [
    "COLOURS",
    "CurveChart",
    "DifferenceChart",
    "DifferenceRow",
    "Line",
    "curve_chart",
    "difference_chart",
    "look",
    "place_of_loss",
]

Point = tuple[float, float]

#: Colours of the methods on a light background and on a dark one.
COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#c94f00", "#ff8f4f"),
    ("#00875f", "#35c79a"),
    ("#b4508c", "#e895c4"),
    ("#9a6b00", "#e0b03c"),
    ("#3f4652", "#c9d1dc"),
    ("#6f52c4", "#b39dff"),
)
#: Kinds of dashes, the first of which is a solid line: with more methods than colours, the dashes differ.
DASHES = 3


def look(methods: Sequence[str], method: str) -> tuple[int, int]:
    """Return the number of a method's colour and the number of its dashes."""
    place = list(methods).index(method)
    return place % len(COLOURS), place // len(COLOURS) % DASHES


@dataclass(frozen=True)
class Line:
    """A method's learning curve.

    Attributes:
        method: its name.
        mean: (epoch, mean over the seeds); only finite values.
        band: (epoch, mean minus and mean plus one standard deviation), where there is more than one seed.
        seeds: (epoch, value) by seed; a value may be NaN.
    """

    method: str
    mean: list[Point]
    band: list[tuple[float, float, float]]
    seeds: dict[int, list[Point]]


@dataclass(frozen=True)
class CurveChart:
    """Learning curves: a line per method with a band, and a thin line per seed.

    Attributes:
        label: of the values.
        caption: what is drawn.
        factor: from the stored value to the value shown.
        x: epochs.
        y: values.
        lines: one per method.
    """

    label: str
    caption: str
    factor: float
    x: Scale
    y: Scale
    lines: list[Line]


@dataclass(frozen=True)
class DifferenceRow:
    """A method's differences to the baseline, in points.

    Attributes:
        method: its name.
        dots: difference by seed.
        mean: the estimate of the test, a mean or a pseudo-median; may be NaN.
        interval: its confidence interval; None if the test gives none.
        pairs: number of seeds that both methods have.
        side: -1 or 1 if the mean lies left or right of the scale, because failed runs moved it; else 0.
    """

    method: str
    dots: dict[int, float]
    mean: float
    interval: tuple[float, float] | None
    pairs: int
    side: int


@dataclass(frozen=True)
class DifferenceChart:
    """Differences to the baseline: a row per method with a dot per seed, the mean and its interval.

    Attributes:
        label: of the differences.
        interval: name of the confidence interval.
        x: differences, in points.
        rows: one per method, without the baseline.
    """

    label: str
    interval: str
    x: Scale
    rows: list[DifferenceRow]

    @property
    def caption(self) -> str:
        """What is drawn."""
        return f"one dot per seed, mean and {self.interval}"


def curve_chart(block: Block, quantity: Quantity) -> CurveChart:
    """Return the learning curves of a block."""
    score = quantity == "validation_score"
    factor = 100.0 if score else 1.0
    unit = "%" if block.metric == "accuracy" else "× 100"  # noqa: RUF001
    last = max((epoch.epoch for run in block.runs for epoch in run.history), default=1)
    shown = [factor * getattr(epoch, quantity) for epoch in _telling(block.runs, last)]
    return CurveChart(
        label=f"validation {metric_name(block.metric)} ({unit})" if score else f"training loss {place_of_loss(block)}",
        caption="mean over seeds, band ± 1 standard deviation",
        factor=factor,
        x=Scale(1, max(last, 2)),
        y=Scale.around(shown, log=not score),
        lines=[_line(curve, block.runs, quantity, factor) for curve in block.curves],
    )


def place_of_loss(block: Block) -> str:
    """Return where the training losses of a block are taken; methods that differ from the others are named."""
    places = {run.method: run.history[-1].loss_at for run in block.runs if run.history}
    elsewhere = [method for method, place in places.items() if place != "w"]
    if not elsewhere or len(elsewhere) == len(places):
        return f"at {'w + eps' if elsewhere else 'w'}"
    return f"at w ({', '.join(elsewhere)}: at w + eps)"


def difference_chart(block: Block) -> DifferenceChart:
    """Return the differences of a block. The scale fits the methods of which no run failed."""
    others = [row for row in block.comparison if row.method != block.baseline]
    whole = [row for row in others if not row.collapsed + row.diverged] or others
    ends = [end for row in whole for end in (row.low, row.high)]
    dots = [dot.difference for dot in block.differences if dot.method in {row.method for row in whole}]
    x = Scale.around([0.0, *ends, *dots], pad=0.06)
    return DifferenceChart(
        label=f"test {metric_name(block.metric)} minus that of {short(block.baseline)} (points)",
        interval=block.interval,
        x=x,
        rows=[_row(row, block, x) for row in others],
    )


def _line(curve: Curve, runs: Sequence[RunResult], quantity: Quantity, factor: float) -> Line:
    triples = [
        (epoch, factor * mean, factor * spread)
        for epoch, mean, spread in zip(
            curve.epoch, getattr(curve, quantity), getattr(curve, f"{quantity}_std"), strict=True
        )
        if math.isfinite(mean)
    ]
    return Line(
        method=curve.method,
        mean=[(epoch, mean) for epoch, mean, _ in triples],
        band=[(epoch, mean - spread, mean + spread) for epoch, mean, spread in triples if math.isfinite(spread)],
        seeds={
            run.seed: [(epoch.epoch, factor * getattr(epoch, quantity)) for epoch in run.history]
            for run in runs
            if run.method == curve.method
        },
    )


def _row(row: Comparison, block: Block, x: Scale) -> DifferenceRow:
    dots = {dot.seed: dot.difference for dot in block.differences if dot.method == row.method}
    interval = (row.low, row.high) if math.isfinite(row.low) and math.isfinite(row.high) else None
    side = -1 if row.difference < x.low else 1 if row.difference > x.high else 0
    return DifferenceRow(row.method, dots, row.difference, interval, row.pairs, side)


def _telling(runs: Sequence[RunResult], last: int) -> list[Epoch]:
    """Return the epochs that the scale has to fit.

    They are those of the runs that did not fail. From ten epochs on, the first fifth is left out, because it is steep.
    """
    whole = [run for run in runs if run.status == "ok"] or runs
    steep = last // 5 if last >= 10 else 0
    return [epoch for run in whole for epoch in run.history if epoch.epoch > steep]
