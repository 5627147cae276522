"""The figure of a tuning: history and importances, and below them the score against each parameter.

Optuna draws all three, each as a figure of its own, and leaves out the pruned trials. Here the pruned trials are added,
the recipe's own setting and the best one are marked, and the three become one picture.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from optuna.importance import FanovaImportanceEvaluator
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances, plot_slice

from .result import TrialResult, TuningResult, copy_of, scored, shown_range

__all__ = ["draw_tuning"]

_DPI = 150
_HEIGHT = 4.0  # of a row, in inches


def draw_tuning(study: optuna.Study, found: TuningResult, title: str, metric: str, path: Path) -> None:
    """Draw the trials into a PNG.

    Args:
        study: Optuna's.
        found: what :func:`read_trials` returned. At least one trial has run to its end.
        title: heading of the history.
        metric: name of the scores.
        path: file to write.
    """
    plt.switch_backend("agg")  # Optuna measures its labels with the renderer of this backend
    with mpl.rc_context({"figure.constrained_layout.use": True}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the functions are marked as experimental, and warn of a single trial
        label = f"validation {metric}"
        slices: list[Axes] = list(np.ravel(cast(Any, plot_slice(study, target_name=label))))
        width = max(12.0, 3.2 * len(slices))
        for axes in slices:
            _mark(axes, found, _parameter(axes.get_xlabel()))
            axes.xaxis.set_minor_formatter(NullFormatter())
        row = [_history(study, found, title, label)]
        if found.importances:
            row.append(_importances(study))
        widths = [0.6 * width, 0.4 * width] if len(row) > 1 else [width]
        above = np.hstack([_pixels(axes, inches) for axes, inches in zip(row, widths, strict=True)])
        plt.imsave(path, np.vstack([above, _pixels(slices[0], width)]))
        plt.close("all")


def _history(study: optuna.Study, found: TuningResult, title: str, label: str) -> Axes:
    axes = plot_optimization_history(study, target_name=label)
    _mark(axes, found, lambda trial: trial.trial)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return axes


def _importances(study: optuna.Study) -> Axes:
    trials = scored(study.get_trials(deepcopy=False))
    axes = plot_param_importances(copy_of(trials), evaluator=FanovaImportanceEvaluator(seed=0))
    cast(Legend, axes.get_legend()).remove()
    axes.set(xlabel="fraction of the variance (fANOVA)", ylabel="")
    return axes


def _parameter(name: str) -> Callable[[TrialResult], float]:
    return lambda trial: trial.settings[name]


def _mark(axes: Axes, found: TuningResult, x: Callable[[TrialResult], float]) -> None:
    """Add the pruned trials, the recipe's own setting and the best one. What lies far below is drawn at the edge."""
    low, high = shown_range([trial.score for trial in found.scored])
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    edge = low + 0.03 * (high - low)
    below = [trial for trial in found.scored if trial.score < low]
    pruned = [trial for trial in found.scored if trial.pruned and trial.score >= low]
    own = [trial for trial in found.scored if trial == found.default]
    best = [trial for trial in found.scored if trial == found.best]
    for trials, marker, size, colour, label in (
        (pruned, "x", 6, "0.5", "pruned"),
        (below, "v", 6, "0.5", "far below"),
        (own, "s", 11, "k", "the recipe's own setting"),
        (best, "*", 14, "tab:red", "best"),
    ):
        if trials:
            places, heights = [x(trial) for trial in trials], [max(trial.score, edge) for trial in trials]
            axes.plot(
                places,
                heights,
                marker,
                color=colour,
                fillstyle="none" if marker == "s" else "full",
                markersize=size,
                label=label,
            )


def _pixels(axes: Axes, width: float) -> npt.NDArray[np.uint8]:
    """Return the figure of these axes as an image, (height, width, 4)."""
    figure = cast(Figure, axes.figure)
    figure.set_dpi(_DPI)
    figure.set_size_inches(round(_DPI * width) / _DPI, _HEIGHT)
    canvas = cast(Any, figure.canvas)  # the agg backend's
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
