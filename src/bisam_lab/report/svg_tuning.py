"""Draw what a tuning found as SVG: history, importances, parallel coordinates, score against each parameter.

The marks are those of the figure in the tuning's folder. What lies far below the others is drawn at the edge.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from ..tuning.result import TrialResult, TuningResult, shown_range
from ..tuning.space import Dimension
from .drawing import LETTER, Along, add, line, markup, path, series, svg, text
from .one_tuning import TuningData
from .scale import Scale
from .words import count_of, short

__all__ = ["draw_history", "draw_importances", "draw_legend", "draw_parallel", "draw_slice"]

_WIDTH, _HEIGHT = 560, 330
_SMALL = (400, 250)
_TOP, _BOTTOM = 14, 46
#: Height of a parameter's bar.
_BAR = 44

_MARKS = (
    ("complete", "ran to its end"),
    ("pruned", "pruned"),
    ("below", "far below"),
    ("own", "the recipe's own setting"),
    ("chosen", "best"),
)


def draw_history(tuning: TuningData) -> Markup:
    """Draw the score of each trial, and the best score so far."""
    found = tuning.found.result
    last = max(trial.trial for trial in found.scored)
    scale = Scale(-0.5, last + 0.5)
    root, x, y = _axes(_WIDTH, _HEIGHT, scale, found, "score of each trial", _whole(last), "trial")
    best = list(_best_so_far(found))
    steps = [point for (a, value), (b, _) in itertools.pairwise(best) for point in ((a, value), (b, value))]
    if best:
        add(root, "path", {"class": "best-so-far", "d": path([*steps, best[-1], (last + 0.5, best[-1][1])], x, y)})
    _trials(root, tuning, lambda trial: trial.trial, x, y)
    return markup(root)


def draw_slice(tuning: TuningData, name: str) -> Markup:
    """Draw the score of each trial against a parameter."""
    dimension = next(d for d in tuning.found.space if d.name == name)
    scale = _scale(dimension)
    root, x, y = _axes(*_SMALL, scale, tuning.found.result, f"score by {name}", scale.ticks(4), name, "chart small")
    _trials(root, tuning, lambda trial: trial.settings[name], x, y)
    return markup(root)


def draw_importances(tuning: TuningData) -> Markup:
    """Draw a bar for each parameter, the most important one on top."""
    shares = sorted(tuning.found.result.importances.items(), key=lambda item: -item[1])
    root = svg(440, _BAR * len(shares) + 6, "importances of the parameters")
    for i, (name, share) in enumerate(shares):
        top, told = i * _BAR, f"{100 * share:.0f} %"
        group = series(root, "m0", name)
        text(group, short(name), 0, top + 17, "start", "name")
        text(group, told, 440, top + 17, "end", "told")
        add(group, "rect", {"class": "lane", "x": 0, "y": top + 24, "width": 440, "height": 12, "rx": 6})
        bar = {"class": "bar", "x": 0, "y": top + 24, "width": max(440 * share, 1), "height": 12, "rx": 6}
        add(group, "rect", bar | {"data-tip": f"{name}: {told} of the variance"})
    return markup(root)


def draw_parallel(tuning: TuningData) -> Markup:
    """Draw an axis for each parameter and one for the score, and a line for each trial."""
    found, space = tuning.found.result, tuning.found.space
    low, high = shown_range([trial.score for trial in found.scored])
    axes = [(short(d.name.rpartition(".")[2]), _scale(d)) for d in space] + [("score", Scale(100 * low, 100 * high))]
    root = svg(_WIDTH, _HEIGHT, "parallel coordinates: one line for each trial", "chart parallel")
    root.attrib["data-near"] = "lines"
    edges = (46, _WIDTH - 46)
    places = [edges[0] + i * (edges[1] - edges[0]) / (len(axes) - 1) for i in range(len(axes))]
    two = len(axes) > 3  # rows of names, which would overlap in one
    columns = [Along(scale, _HEIGHT - 34, 62 if two else 40) for _, scale in axes]
    for trial in _drawn_last_the_best(found):
        values = [trial.settings[d.name] for d in space] + [100 * max(trial.score, low)]
        _one_line(root, trial, found, places, [at(value) for at, value in zip(columns, values, strict=True)])
    for number, ((name, scale), place, at) in enumerate(zip(axes, places, columns, strict=True)):
        line(root, "axis", place, at.start, place, at.end)
        anchor = "start" if place == places[0] else "end" if place == places[-1] else "middle"
        edge = 0.0 if anchor == "start" else float(_WIDTH) if anchor == "end" else place
        text(root, name, edge, 40 if two and number % 2 else 18, anchor, "strong")
        for tick in scale.ticks(4):
            text(root, _short_number(tick), place - 6, at(tick) + 5, "end", "tick")
    return markup(root)


def draw_legend() -> Markup:
    """Draw what the marks mean."""
    parts = []
    for kind, words in _MARKS:
        root = Element("svg", {"viewBox": "0 0 20 20", "class": "sign", "aria-hidden": "true"})
        _mark(root, kind, 10, 10, None)
        parts.append(Markup('<span class="held">{} {}</span>').format(markup(root), words))
    return Markup(" ").join(parts)


def _one_line(
    root: Element, trial: TrialResult, found: TuningResult, places: Sequence[float], heights: Sequence[float]
) -> None:
    """Draw a trial's line, and a mark on each axis that the pointer can find."""
    group = series(root, f"trial {_kind_of_line(trial, found)}", f"trial {trial.trial}")
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(places, heights, strict=True))
    add(group, "polyline", {"points": points, "class": "path"})
    for place, height in zip(places, heights, strict=True):
        add(group, "circle", {"class": "joint", "cx": place, "cy": height, "r": 3, "data-tip": _tip(trial)})


def _kind_of_line(trial: TrialResult, found: TuningResult) -> str:
    if trial == found.best:
        return "chosen"
    if trial == found.default:
        return "own"
    middle = sorted(one.score for one in found.scored)[len(found.scored) // 2]
    return "pruned" if trial.pruned else "good" if trial.score >= middle else "poor"


def _drawn_last_the_best(found: TuningResult) -> list[TrialResult]:
    order = ["pruned", "poor", "good", "own", "chosen"]
    return sorted(found.scored, key=lambda trial: order.index(_kind_of_line(trial, found)))


def _best_so_far(found: TuningResult) -> Sequence[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for trial in found.scored:
        if not trial.pruned and (not points or 100 * trial.score > points[-1][1]):
            points.append((trial.trial, 100 * trial.score))
    return points


def _axes(
    width: float,
    height: float,
    scale: Scale,
    found: TuningResult,
    label: str,
    ticks: Sequence[float],
    name: str,
    kind: str = "chart",
) -> tuple[Element, Along, Along]:
    """Return an empty chart of scores in per cent along something else, with its axes."""
    low, high = shown_range([trial.score for trial in found.scored])
    values = Scale(100 * low, 100 * high)
    root, marks = svg(width, height, label, kind), values.ticks(4 if "small" in kind else 5)
    left = max(len(f"{tick:.6g}") for tick in marks) * LETTER + 14 if marks else 44
    x, y = Along(scale, left, width - 14), Along(values, height - _BOTTOM, _TOP)
    for tick in marks:
        line(root, "grid", left, y(tick), x.end, y(tick))
        text(root, f"{tick:.6g}", left - 8, y(tick) + 5, "end")
    for tick in ticks:
        text(root, _short_number(tick), x(tick), height - _BOTTOM + 20, "middle")
    text(root, name, (x.start + x.end) / 2, height - 6, "middle")
    return root, x, y


def _trials(root: Element, tuning: TuningData, at: Callable[[TrialResult], float], x: Along, y: Along) -> None:
    found = tuning.found.result
    edge = y.scale.low + 0.03 * (y.scale.high - y.scale.low)
    group = series(root, "m0", "trials")
    for trial in found.scored:
        below = 100 * trial.score < y.scale.low
        kind = "below" if below else "pruned" if trial.pruned else "complete"
        _mark(group, kind, x(at(trial)), y(max(100 * trial.score, edge)), _tip(trial))
    for named, kind in ((found.default, "own"), (found.best, "chosen")):
        if named is not None:
            _mark(group, kind, x(at(named)), y(max(100 * named.score, edge)), _tip(named))


def _mark(parent: Element, kind: str, x: float, y: float, tip: str | None) -> None:
    """Draw a trial's mark."""
    shapes: Mapping[str, str] = {
        "pruned": f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
        "below": f"M{x - 5:.1f} {y - 4:.1f}h10l-5 9Z",
        "own": f"M{x - 8:.1f} {y - 8:.1f}h16v16h-16Z",
        "chosen": f"M{x:.1f} {y - 9:.1f}l2.6 5.6 6.1 .7 -4.5 4.2 1.2 6.1 -5.4 -3 -5.4 3 1.2 -6.1 -4.5 -4.2 6.1 -.7Z",
    }
    extra: dict[str, Any] = {"data-tip": tip}
    if kind == "complete":
        add(parent, "circle", {"class": "mark complete", "cx": x, "cy": y, "r": 5} | extra)
    else:
        add(parent, "path", {"class": f"mark {kind}", "d": shapes[kind]} | extra)


def _tip(trial: TrialResult) -> str:
    settings = ", ".join(f"{name} {value:.4g}" for name, value in trial.settings.items())
    return f"trial {trial.trial}{', pruned' if trial.pruned else ''}: {100 * trial.score:.2f}; {settings}"


def _scale(dimension: Dimension) -> Scale:
    return Scale(dimension.low, dimension.high, log=dimension.log)


def _whole(last: int) -> list[float]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if s >= last / 7)
    return [float(n) for n in range(0, last + 1, step)]


def _short_number(number: float) -> str:
    if number and abs(number) < 1e-3:
        return f"{number:.0e}".replace("e-0", "e-")
    return count_of(number)
