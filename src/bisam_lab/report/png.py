"""Draw the charts of a comparison with matplotlib, side by side in one PNG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .block import Block
from .charts import COLOURS, CurveChart, DifferenceChart, DifferenceRow, curve_chart, difference_chart, look
from .words import signed

__all__ = ["draw_comparison", "draw_curves", "draw_differences"]

_DASHES = ("-", "--", ":")


def draw_comparison(block: Block, title: str, path: Path) -> None:
    """Draw the learning curves on validation, and the paired differences on test.

    Args:
        block: with at least one finished run of the baseline.
        title: of the figure.
        path: PNG to write.
    """
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_curves(left, curve_chart(block, "validation_score"), block)
        draw_differences(right, difference_chart(block), block)
        figure.savefig(path, dpi=150)


def draw_curves(axes: Axes, chart: CurveChart, block: Block) -> None:
    """Draw learning curves: a line a method with its band, and a thin line a seed."""
    for line in chart.lines:
        number, dash = look(block.methods, line.method)
        colour = COLOURS[number][0]
        for points in line.seeds.values():
            axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=0.6, alpha=0.4)
        epochs, means = [x for x, _ in line.mean], [y for _, y in line.mean]
        axes.plot(epochs, means, color=colour, linestyle=_DASHES[dash], label=line.method)
        if len(line.band) > 1:
            x, low, high = ([point[i] for point in line.band] for i in range(3))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(chart.y.low, chart.y.high))
    axes.set(xlabel="epoch", ylabel=chart.label)
    axes.set_title(chart.caption, fontsize="medium")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="lower right")


def draw_differences(axes: Axes, chart: DifferenceChart, block: Block) -> None:
    """Draw a row per method: a dot per seed, the mean as a diamond, and its interval."""
    heights = range(len(chart.rows))[::-1]
    for height, row in zip(heights, chart.rows, strict=True):
        _draw_row(axes, height, row, COLOURS[look(block.methods, row.method)[0]][0], chart)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(heights, [row.method for row in chart.rows])
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(-0.6, len(chart.rows) - 0.4))
    axes.set_xlabel(chart.label)
    axes.set_title(chart.caption, fontsize="medium")


def _draw_row(axes: Axes, height: int, row: DifferenceRow, colour: str, chart: DifferenceChart) -> None:
    axes.plot(list(row.dots.values()), [height] * len(row.dots), "o", color=colour, alpha=0.4, markersize=5)
    if row.interval is not None:
        axes.plot(row.interval, [height + 0.15] * 2, color=colour, linewidth=2)
    axes.plot(row.mean, height + 0.15, "D", color=colour, markersize=6)
    if row.side < 0:
        axes.text(chart.x.low, height - 0.2, f"◀ mean {signed(row.mean)}", color=colour, va="center")
    elif row.side > 0:
        axes.text(chart.x.high, height - 0.2, f"mean {signed(row.mean)} ▶", color=colour, va="center", ha="right")
