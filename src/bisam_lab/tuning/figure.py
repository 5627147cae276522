"""The picture of a tuning: the way to the best score, what mattered, and the score against each parameter."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from .outcome import Outcome, Tried
from .space import Dimension, Space

__all__ = ["draw"]

_WHOLE, _PRUNED, _OWN, _BEST = "C0", "0.6", "k", "C3"


def draw(found: Outcome, space: Space, title: str, metric: str, path: Path) -> None:
    """Draw history and importances above, and below a slice for each parameter, on the scale it was searched on.

    Args:
        found: at least one trial.
        space: what was searched.
        title: above all.
        metric: what the scores are.
        path: PNG.
    """
    columns = min(len(space), 4)
    rows = 1 + -(-len(space) // columns)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(8.5, 3.4 * columns), 3.1 * rows + 0.6), layout="constrained")
        figure.suptitle(title)
        grid = figure.add_gridspec(rows, 12)
        wide = 12 if not found.importances else 8
        history = figure.add_subplot(grid[0, :wide])
        _history(history, found, metric)
        if found.importances:
            _importances(figure.add_subplot(grid[0, wide:]), found.importances)
        low, high = _limits(found.tried)
        for i, dimension in enumerate(space):
            row, column, width = 1 + i // columns, i % columns, 12 // columns
            axes = figure.add_subplot(grid[row, column * width : (column + 1) * width])
            _slice(axes, dimension, found)
            axes.set_ylim(low, high)
            axes.set_ylabel(f"validation {metric} (%)" if column == 0 else "")
        history.set_ylim(low, high)
        _legend(figure, found)
        figure.savefig(path, dpi=150)


def _limits(tried: list[Tried]) -> tuple[float, float]:
    """Return a range in percent that shows the better half well; what lies far below is drawn at its lower end."""
    scores = 100 * np.array([trial.score for trial in tried])
    high, middle = scores.max(), np.median(scores)
    low = max(scores.min(), high - 3 * max(high - middle, 1.0))
    margin = 0.06 * max(high - low, 1.0)
    return float(low - margin), float(high + margin)


def _height(trial: Tried, tried: list[Tried]) -> float:
    """Return where a trial is drawn, in percent: one far below, at the lower edge."""
    low, high = _limits(tried)
    return max(100 * trial.score, low + 0.03 * (high - low))


def _points(axes: Axes, x: dict[int, float], tried: list[Tried]) -> None:
    low, _ = _limits(tried)
    for pruned, marker, colour in ((True, "x", _PRUNED), (False, "o", _WHOLE)):
        for below in (False, True):
            chosen = [t for t in tried if t.pruned == pruned and (100 * t.score < low) == below]
            places = [x[t.trial] for t in chosen], [_height(t, tried) for t in chosen]
            axes.plot(*places, linestyle="", marker="v" if below else marker, color=colour, markersize=6, alpha=0.8)


def _marks(axes: Axes, found: Outcome, x: dict[int, float]) -> None:
    """Frame the recipe's own setting, and star the best one."""
    if (own := found.default) is not None:
        place = x[own.trial], _height(own, found.tried)
        axes.plot(*place, "s", color=_OWN, fillstyle="none", markersize=11, markeredgewidth=1.4)
    if (best := found.best) is not None:
        axes.plot(x[best.trial], _height(best, found.tried), "*", color=_BEST, markersize=14, markeredgecolor="w")


def _history(axes: Axes, found: Outcome, metric: str) -> None:
    x = {trial.trial: float(trial.trial) for trial in found.tried}
    _points(axes, x, found.tried)
    whole = [trial for trial in found.tried if not trial.pruned]
    if whole:
        best = np.maximum.accumulate([100 * trial.score for trial in whole])
        numbers = [trial.trial for trial in whole]
        axes.step([*numbers, max(x.values())], [*best, best[-1]], where="post", color=_BEST, linewidth=1.2, zorder=1)
    _marks(axes, found, x)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"validation {metric} (%)", title="history, and the best so far")


def _importances(axes: Axes, importances: dict[str, float]) -> None:
    names = list(importances)[::-1]
    bars = axes.barh(names, [importances[name] for name in names], color=_WHOLE, height=0.4)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.15), ylim=(-0.7, len(names) - 0.3), xlabel="share of the variance (fANOVA)", title="importance")


def _slice(axes: Axes, dimension: Dimension, found: Outcome) -> None:
    values = {trial.trial: trial.settings[dimension.name] for trial in found.tried}
    _points(axes, values, found.tried)
    _marks(axes, found, values)
    if dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    margin = (dimension.high / dimension.low) ** 0.04 if dimension.log else 0.04 * (dimension.high - dimension.low)
    low, high = (
        (dimension.low / margin, dimension.high * margin)
        if dimension.log
        else (dimension.low - margin, dimension.high + margin)
    )
    axes.set(xlim=(low, high), xlabel=dimension.name)
    for end in (dimension.low, dimension.high):
        axes.axvline(end, color="0.8", linewidth=1, linestyle=":", zorder=0)


def _legend(figure: Figure, found: Outcome) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", color=_WHOLE, label="trained to the end"),
        Line2D([], [], linestyle="", marker="x", color=_PRUNED, label="pruned (score when stopped)"),
        Line2D([], [], linestyle="", marker="v", color=_PRUNED, label="far below"),
    ]
    if found.default is not None:
        own = Line2D([], [], linestyle="", marker="s", color=_OWN, fillstyle="none", markersize=9)
        own.set_label("the recipe's own setting")
        handles.append(own)
    if found.best is not None:
        best = Line2D([], [], linestyle="", marker="*", color=_BEST, label="best", markersize=13, markeredgecolor="w")
        handles.append(best)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
