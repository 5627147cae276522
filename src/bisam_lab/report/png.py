"""Draw the charts of a comparison with matplotlib, side by side in one PNG, with the page's colours and letters."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.transforms import blended_transform_factory

from .block import Block
from .charts import CurveChart, DifferenceChart, DifferenceRow, block_chart, difference_chart, look
from .quantities import AXES
from .theme import COLOURS, FONTS, LIGHT
from .words import count_of, short, signed

__all__ = ["draw_comparison", "draw_curves", "draw_differences", "page_style"]

_DASHES = ("-", (0, (4, 2)), (0, (1, 2)))
#: Height of a method's lane and of the rest, in inches.
_LANE, _REST = 0.62, 1.5
#: With more methods their names do not fit beside each other at the ends of their lines.
_NAMED = 14


def draw_comparison(block: Block, title: str, path: Path) -> None:
    """Draw the learning curves on validation, and the paired differences on test.

    Args:
        block: with at least one finished run of the baseline.
        title: of the figure.
        path: PNG to write.
    """
    chart = difference_chart(block)
    with page_style():
        figure = Figure(figsize=(10.5, max(4.2, _LANE * len(chart.rows) + _REST)), layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
        left, right = figure.subplots(1, 2, width_ratios=(19, 13))
        draw_curves(left, block_chart(block, "validation_score"), block)
        draw_differences(right, chart, block)
        figure.savefig(path, dpi=150)


@contextlib.contextmanager
def page_style() -> Iterator[None]:
    """Let matplotlib draw with the page's letters, in the colours of its light side."""
    there = set(get_font_names())
    soft = LIGHT["soft"]
    style: Any = {
        "font.family": [font for font in FONTS if font in there] or ["DejaVu Sans"],
        "font.size": 10,
        "text.color": LIGHT["ink"],
        "axes.labelcolor": soft,
        "axes.edgecolor": LIGHT["line"],
        "axes.facecolor": LIGHT["card"],
        "axes.titlecolor": soft,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": LIGHT["grid"],
        "grid.linewidth": 0.8,
        "xtick.color": soft,
        "ytick.color": soft,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "figure.titleweight": "bold",
        "figure.facecolor": LIGHT["card"],
        "lines.solid_capstyle": "round",
        **{f"axes.spines.{side}": False for side in ("top", "right", "left", "bottom")},
    }
    with mpl.rc_context(style):
        yield


def draw_curves(axes: Axes, chart: CurveChart, block: Block) -> None:
    """Draw learning curves: a line a method with its band."""
    for line in chart.lines:
        number, dash = look(block.methods, line.method)
        colour = COLOURS[number][0]
        inside = [low in chart.y and high in chart.y for _, low, high in line.band]
        if len(line.band) > 1:
            x, low, high = ([point[i] for point in line.band] for i in range(3))
            axes.fill_between(x, low, high, where=inside, color=colour, alpha=0.13, linewidth=0)
        places, means = [x for x, _ in line.mean], [y for _, y in line.mean]
        mark = "o" if len(means) == 1 else None
        axes.plot(places, means, color=colour, linestyle=_DASHES[dash], linewidth=1.9, marker=mark, label=line.method)
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(chart.y.low, chart.y.high))
    axes.set(xlabel=AXES[chart.axis].label, title=f"{chart.label}: {chart.caption}")
    axes.set_xticks(chart.places, [count_of(place) for place in chart.places])
    axes.set_yticks(chart.y.ticks(), [f"{tick:.6g}" for tick in chart.y.ticks()])
    if len(chart.lines) > _NAMED:
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="lower right")
    else:
        _name_lines(axes, chart, block)


def _name_lines(axes: Axes, chart: CurveChart, block: Block) -> None:
    """Write each method's name at the end of its line, one under the other where they end close together."""
    low, high = chart.y.low, chart.y.high
    lines = [line for line in chart.lines if line.mean]
    ends = sorted(
        ((chart.y.fraction(min(max(line.mean[-1][1], low), high)), line) for line in lines), key=lambda e: e[0]
    )
    step, places = 0.062, list[float]()
    for end, _ in ends:
        places.append(max(end, places[-1] + step) if places else end)
    over = max(0.0, places[-1] - 1.0) if places else 0.0
    for place, (_, line) in zip(places, ends, strict=True):
        colour = COLOURS[look(block.methods, line.method)[0]][0]
        axes.text(
            1.015, place - over, short(line.method), transform=axes.transAxes, color=colour, va="center", weight="bold"
        )


def draw_differences(axes: Axes, chart: DifferenceChart, block: Block) -> None:
    """Draw a lane per method, as the page does: no line crosses a name."""
    for place, row in enumerate(chart.rows):
        _draw_lane(axes, len(chart.rows) - 1 - place, row, COLOURS[look(block.methods, row.method)[0]][0], chart)
    axes.grid(visible=False)
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(-0.42, len(chart.rows) - 0.42 + 0.2), yticks=[])
    axes.set(xlabel=chart.label, title=chart.caption)
    axes.set_xticks(chart.x.ticks(6), [signed(tick, 6) for tick in chart.x.ticks(6)])


def _draw_lane(axes: Axes, floor: int, row: DifferenceRow, colour: str, chart: DifferenceChart) -> None:
    bottom, top = floor - 0.34, floor + 0.28
    middle, under, name = floor + 0.09, floor - 0.2, floor + 0.42
    axes.axhspan(bottom, top, color=LIGHT["paper"], zorder=0, linewidth=0)
    for tick in chart.x.ticks(6):
        shade, width = (LIGHT["soft"], 1.1) if tick == 0 else (LIGHT["line"], 0.8)
        axes.vlines(tick, bottom, top, color=shade, linewidth=width, zorder=1)
    inside = [value for value in row.dots.values() if value in chart.x]
    axes.plot(inside, [under] * len(inside), "o", color=colour, alpha=0.5, markersize=5, markeredgewidth=0)
    if row.interval is not None:
        axes.plot(row.interval, [middle] * 2, color=colour, linewidth=2.2)
    if not row.side:
        axes.plot(row.mean, middle, "D", color=colour, markersize=7)
    across = blended_transform_factory(axes.transAxes, axes.transData)
    told = f" [{signed(row.interval[0])}, {signed(row.interval[1])}]" if row.interval else ""
    beyond = " ◀" if row.side < 0 else " ▶" if row.side > 0 else ""
    axes.text(0, name, short(row.method), transform=across, color=colour, va="center", fontweight="bold")
    axes.text(1, name, f"{signed(row.mean)}{told}{beyond}", transform=across, va="center", ha="right", fontsize=9.5)
