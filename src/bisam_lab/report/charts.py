"""The charts of runs and comparisons, before they are drawn: their data, scales, labels and colours.

:mod:`.svg` draws them on the page, :mod:`.png` in the figure of the study's folder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..registry.metrics import metric_name
from ..run.result import RunResult
from ..statistics import Comparison
from .block import Block
from .quantities import QUANTITIES, Along, along, label
from .scale import Scale
from .theme import COLOURS
from .words import short

__all__ = [
    "CurveChart",
    "DifferenceChart",
    "DifferenceRow",
    "Line",
    "block_chart",
    "curve_chart",
    "difference_chart",
    "known",
    "left_out",
    "look",
    "place_of_loss",
]

Point = tuple[float, float]

#: Kinds of dashes, the first of which is a solid line: with more methods than colours, the dashes differ.
DASHES = 3
#: From so many epochs on, the first fifth is left out, because it is steep.
LONG = 10


def look(methods: Sequence[str], method: str) -> tuple[int, int]:
    """Return the number of a method's colour and the number of its dashes."""
    place = list(methods).index(method)
    return place % len(COLOURS), place // len(COLOURS) % DASHES


@dataclass(frozen=True)
class Line:
    """A method's learning curve. Epochs that the chart leaves out are not in it.

    Attributes:
        method: its name.
        mean: (place, mean over the seeds); only finite values.
        band: (place, mean minus and mean plus one standard deviation), where there is more than one seed.
        epochs: of ``mean``.
        seeds: (place, value) by seed; a value may be NaN.
    """

    method: str
    mean: list[Point]
    band: list[tuple[float, float, float]]
    epochs: list[int]
    seeds: dict[int, list[Point]]


@dataclass(frozen=True)
class CurveChart:
    """Learning curves: a line per method with a band, and a thin line per seed.

    Attributes:
        quantity: what they show, a key of ``QUANTITIES``.
        axis: what they run along.
        label: of the values.
        x: places on the axis.
        y: values.
        lines: one per method.
        first: the first epoch that is shown.
    """

    quantity: str
    axis: Along
    label: str
    x: Scale
    y: Scale
    lines: list[Line]
    first: int

    @property
    def places(self) -> list[float]:
        """Where the axis that the curves run along has numbers: whole epochs, or round passes or seconds."""
        return _whole_numbers(self.x.low, self.x.high) if self.axis == "epoch" else self.x.ticks(5)

    @property
    def caption(self) -> str:
        """What is drawn."""
        spread = any(line.band for line in self.lines)
        return "mean over seeds, band ± 1 standard deviation" if spread else "one seed a method"


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


def block_chart(block: Block, quantity: str, axis: Along | None = None) -> CurveChart:
    """Return learning curves of a block: by default along what its methods have spent alike, epochs or the budget."""
    runs = [run for run in block.runs if quantity != "train_loss" or run.method not in left_out(block.runs)]
    spent: Along = "seconds" if block.budget == "seconds" else "passes" if block.budget == "passes" else "epoch"
    chosen = axis or (spent if known(runs, quantity, spent) else "epoch")
    return curve_chart(runs, quantity, block.metric, chosen)


def curve_chart(
    runs: Sequence[RunResult], quantity: str, metric: str, axis: Along = "epoch", *, each: bool = False
) -> CurveChart:
    """Return the learning curves of runs: a line for each method, or for ``each`` run.

    The scales hold everything that is drawn of methods of which no run failed. Failed ones may leave them.
    """
    last = max((epoch.epoch for run in runs for epoch in run.history), default=1)
    score = quantity in ("validation_score", "train_score", "train_loss")
    first = last // 5 + 1 if last >= LONG and score else 1
    groups: dict[object, list[RunResult]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(number if each else run.method, []).append(run)
    lines = [_line(group[0].method, group, quantity, axis, first) for group in groups.values()]
    failed = {run.method for run in runs if run.status != "ok"}
    whole = [line for line in lines if line.method not in failed] or lines
    seeds = [run for run in runs if run.status == "ok"] or runs
    ends = [end for line in whole for _, *both in line.band for end in both]
    shown = [value for run in seeds for value in _values(run, quantity, first)]
    places = [x for line in lines for x, _ in line.mean] or [0.0]
    name = label(quantity, metric)
    return CurveChart(
        quantity=quantity,
        axis=axis,
        label=f"{name} {place_of_loss(runs)}" if quantity == "train_loss" else name,
        x=Scale(min(places), max(*places, min(places) + 1)),
        y=Scale.around([*shown, *ends], log=QUANTITIES[quantity].log),
        lines=lines,
        first=first,
    )


def known(runs: Sequence[RunResult], quantity: str, axis: Along = "epoch") -> bool:
    """Whether every run has recorded something of a quantity along an axis, and not nothing but zeros."""
    values = [
        [y for x, y in zip(along(run, axis), _values(run, quantity, 1), strict=True) if math.isfinite(x + y)]
        for run in runs
        if run.history
    ]
    some = [each for each in values if each]
    complete = axis == "epoch" or len(some) == len(values)
    return bool(some) and complete and any(map(any, some))


def left_out(runs: Sequence[RunResult]) -> list[str]:
    """Return the methods whose training loss is that at w + eps, where others tell that at w: they do not compare."""
    places = {run.method: run.history[-1].loss_at for run in runs if run.history}
    elsewhere = [method for method, place in places.items() if place != "w"]
    return elsewhere if len(elsewhere) < len(places) else []


def place_of_loss(runs: Sequence[RunResult]) -> str:
    """Return where the training losses that are drawn are taken."""
    return "at w" if any(run.history[-1].loss_at == "w" for run in runs if run.history) else "at w + eps"


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


def _whole_numbers(low: float, high: float) -> list[float]:
    step = max(1, math.ceil((high - low) / 6))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, step) if s >= step)
    first = math.ceil(low)
    return [float(n) for n in range(first, int(high) + 1) if n == first or (n % step == 0 and n - first >= step / 2)]


def _values(run: RunResult, quantity: str, first: int) -> list[float]:
    read = QUANTITIES[quantity].value
    return [read(epoch) for epoch in run.history if epoch.epoch >= first]


def _line(method: str, runs: Sequence[RunResult], quantity: str, axis: Along, first: int) -> Line:
    seeds = {
        run.seed: [
            (epoch.epoch, place, QUANTITIES[quantity].value(epoch))
            for epoch, place in zip(run.history, along(run, axis), strict=True)
            if epoch.epoch >= first
        ]
        for run in runs
    }
    by_epoch: dict[int, list[Point]] = {}
    for points in seeds.values():
        for epoch, x, y in points:
            if math.isfinite(x + y):  # the last loss of a diverged run is NaN
                by_epoch.setdefault(epoch, []).append((x, y))
    found = {epoch: np.array(points) for epoch, points in sorted(by_epoch.items())}
    means = {epoch: points.mean(0) for epoch, points in found.items()}
    spreads = {epoch: float(points[:, 1].std(ddof=1)) for epoch, points in found.items() if len(points) > 1}
    return Line(
        method=method,
        mean=[(float(x), float(y)) for x, y in means.values()],
        band=[(float(means[e][0]), float(means[e][1]) - s, float(means[e][1]) + s) for e, s in spreads.items()],
        epochs=list(means),
        seeds={seed: [(x, y) for _, x, y in points if math.isfinite(x)] for seed, points in seeds.items()},
    )


def _row(row: Comparison, block: Block, x: Scale) -> DifferenceRow:
    dots = {dot.seed: dot.difference for dot in block.differences if dot.method == row.method}
    interval = (row.low, row.high) if math.isfinite(row.low) and math.isfinite(row.high) else None
    side = -1 if row.difference < x.low else 1 if row.difference > x.high else 0
    return DifferenceRow(row.method, dots, row.difference, interval, row.pairs, side)
