"""Draw the figures of an audit as SVG: margins, rises, batches, the course of training, and the loss around w."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from markupsafe import Markup

from ..statistics.tests import TESTS
from .charts import look
from .drawing import LETTER, Along, add, line, markup, path, series, svg, text
from .scale import Scale
from .words import signed

__all__ = ["draw_around", "draw_batches", "draw_course", "draw_margins", "draw_plane", "draw_rises", "style_of"]

Point = tuple[float, float]
_WIDTH, _HEIGHT = 560, 330
_TOP, _BOTTOM = 14, 46
_NARROW, _ROW = 440, 64
SAM = "sam"


@dataclass(frozen=True)
class _Line:
    """A line of a chart; a dashed one tells of held-out data."""

    name: str
    points: list[Point]
    dashed: bool = False
    tip: str = ""


def style_of(names: Sequence[str], name: str, *, dashed: bool = False) -> str:
    """Return the CSS classes of an adversary."""
    colour, dash = look(names, name)
    return f"m{colour} dash{1 if dashed else 2 * bool(dash)}"


def draw_rises(audit: Mapping[str, Any], kind: str, names: Sequence[str]) -> Markup:
    """Draw the rise of the error against rho: solid on the batch that is climbed, dashed on held-out data."""
    lines = []
    for name in names:
        mine = [row for row in audit["rows"] if (row["adversary"], row["statistics"]) == (name, kind)]
        for key, dashed in (("rise_error_batch", False), ("rise_error_held_out", True)):
            points = [(row["rho"], _number(row[key])) for row in mine]
            if any(math.isfinite(value) for _, value in points):
                where = "held-out data" if dashed else "the batch"
                lines.append(_Line(name, [(0.0, 0.0), *points], dashed, f"{name}, {where}"))
    return _chart(lines, names, "radius rho", f"rise of the error in points, {kind} statistics")


def draw_course(audits: Sequence[Mapping[str, Any]], kind: str, rho: float, key: str, label: str) -> Markup:
    """Draw a number of the rows along the checkpoints of each run; with ``KEY_batch`` also that of held-out data."""
    runs: dict[str | None, list[tuple[float, Mapping[str, Any]]]] = {}
    known = all(audit.get("epoch") is not None for audit in audits)
    for i, audit in enumerate(audits):
        runs.setdefault(audit.get("run"), []).append((float(audit["epoch"] if known else i), audit))
    names = list(dict.fromkeys(row["adversary"] for audit in audits for row in audit["rows"]))
    keys = (
        [(f"{key}_batch", False), (f"{key}_held_out", True)]
        if key.startswith(("rise", "difference"))
        else [(key, False)]
    )
    lines = []
    for name, (of, dashed), (run, there) in itertools.product(names, keys, runs.items()):
        points = [
            (place, _number(row[of]))
            for place, audit in there
            for row in audit["rows"]
            if (row["adversary"], row["statistics"], row["rho"]) == (name, kind, rho)
        ]
        if any(math.isfinite(value) for _, value in points):
            told = [name, *(["held-out data"] if dashed else []), *([run] if run and len(runs) > 1 else [])]
            lines.append(_Line(name, points, dashed, ", ".join(told)))
    return _chart(lines, names, "epoch" if known else "checkpoint", label)


def draw_margins(histogram: Mapping[str, Any], names: Sequence[str]) -> Markup:
    """Draw the samples by margin as bars, and over them the share of its weight that each objective lays there."""
    edges, share = histogram["edges"], histogram["share"]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    highest = max([*share, *(max(weights) for weights in histogram["weights"].values())], default=1.0)
    root, x, y = _frame(
        Scale(edges[0], edges[-1]), Scale(0.0, 100 * highest * 1.05), "margin", "samples by margin, in %"
    )
    for a, b, height in zip(edges, edges[1:], share, strict=False):
        top = y(100 * height)
        add(root, "rect", {"x": x(a), "y": top, "width": x(b) - x(a) - 1, "height": y(0.0) - top, "class": "samples"})
    if edges[0] < 0 < edges[-1]:
        line(root, "zero", x(0.0), _TOP, x(0.0), y(0.0))
    for name, weights in histogram["weights"].items():
        group = series(root, style_of(names, name), name)
        points = list(zip(middles, (100 * weight for weight in weights), strict=True))
        add(group, "path", {"class": "mean", "d": path(points, x, y)})
    return markup(root)


def draw_batches(audit: Mapping[str, Any], kind: str, rho: float, key: str, names: Sequence[str]) -> Markup:
    """Draw each batch as a dot: what it loses under an adversary more than under SAM, with mean and 95 % interval."""
    points = [p for p in audit["points"] if (p["statistics"], p["rho"]) == (kind, rho) and p[key] is not None]
    sam = {p["batch"]: p[key] for p in points if p["adversary"] == SAM}
    differences = {
        name: [p[key] - sam[p["batch"]] for p in points if p["adversary"] == name and p["batch"] in sam]
        for name in names
        if name != SAM
    }
    found = {name: values for name, values in differences.items() if values}
    scale = Scale.around([0.0, *(value for values in found.values() for value in values)], pad=0.06)
    height = _ROW * len(found) + _BOTTOM
    root = svg(_NARROW, height, "each batch's rise of the error minus that under SAM, in points", "chart differences")
    x = Along(scale, 16, _NARROW - 16)
    for i, (name, values) in enumerate(found.items()):
        _lane(root, name, values, style_of(names, name), i * _ROW, x)
    for tick in scale.ticks(6):
        text(root, signed(tick, 6), x(tick), _ROW * len(found) + 14, "middle")
    text(root, f"difference to SAM (points), rho {rho:g}", _NARROW / 2, height - 6, "middle")
    return markup(root)


def _lane(root: Element, name: str, values: Sequence[float], style: str, top: float, x: Along) -> None:
    lane = series(root, style, name)
    mean, (low, high, _) = float(np.mean(values)), TESTS["t"](values)
    interval = f" [{signed(low)}, {signed(high)}]" if math.isfinite(low + high) else ""
    text(lane, name, 0, top + 18, "start", "name")
    text(lane, f"{signed(mean)}{interval}", _NARROW, top + 18, "end", "told")
    add(lane, "rect", {"class": "lane", "x": 0, "y": top + 24, "width": _NARROW, "height": _ROW - 32, "rx": 6})
    line(lane, "zero", x(0.0), top + 24, x(0.0), top + _ROW - 8)
    if interval:
        line(lane, "interval", x(max(low, x.scale.low)), top + 34, x(min(high, x.scale.high)), top + 34)
    for batch, value in enumerate(values):
        where = {"cx": x(value), "cy": top + 47, "r": 4, "class": "dot"}
        add(lane, "circle", where | {"data-tip": f"{name}, batch {batch + 1}: {signed(value)} points"})
    at = x(mean)
    add(
        lane, "path", {"class": "diamond", "d": f"M{at - 6:.1f} {top + 34}l6 -6l6 6l-6 6Z", "data-tip": f"{name}, mean"}
    )


def draw_around(lines: Mapping[str, Sequence[Point]], names: Sequence[str], label: str) -> Markup:
    """Draw a quantity along the direction of each adversary, from -2 to 2 times its perturbation."""
    found = [_Line(name, list(points), False, name) for name, points in lines.items()]
    return _chart(found, names, "multiple of eps", label)


def draw_plane(plane: Mapping[str, Any]) -> Markup:
    """Draw a number on a grid as a map: the darker, the larger; black numbers are values at the corners and at w."""
    values = plane["values"]
    finite = [value for row in values for value in row if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    size, side = _NARROW / len(values), len(values)
    root = svg(_NARROW, _NARROW, f"{plane['what']} around w", "chart")
    group = series(root, "m0 dash0", plane["first"])
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            top = (side - 1 - i) * size
            shade = 0.0 if value is None else 0.06 + 0.8 * (value - low) / ((high - low) or 1.0)
            box = {"x": j * size, "y": top, "width": size, "height": size, "class": "bar"}
            told = {"opacity": f"{shade:.3f}", "data-tip": f"{plane['what']} {value:.4g}" if value is not None else ""}
            add(group, "rect", box | told)
            if value is not None and i in (0, side // 2, side - 1) and j in (0, side // 2, side - 1):
                text(root, f"{value:.3g}", (j + 0.5) * size, top + size / 2 + 5, "middle", "told")
    return markup(root)


def _chart(lines: Sequence[_Line], names: Sequence[str], axis: str, label: str) -> Markup:
    values = [value for one in lines for _, value in one.points]
    places = [place for one in lines for place, _ in one.points] or [0.0, 1.0]
    low, high = min(places), max(places)
    root, x, y = _frame(Scale(low, high if high > low else low + 1), Scale.around(values), axis, label)
    if 0.0 in y.scale:
        line(root, "zero", x.start, y(0.0), x.end, y(0.0))
    for one in lines:
        group = series(root, style_of(names, one.name, dashed=one.dashed), one.name)
        add(group, "path", {"class": "mean", "d": path(one.points, x, y)})
        for place, value in one.points:
            if math.isfinite(value):
                tip = f"{one.tip}: {signed(value)} at {axis} {place:g}"
                add(group, "circle", {"class": "only", "cx": x(place), "cy": y(value), "r": 3, "data-tip": tip})
    return markup(root)


def _frame(x_scale: Scale, y_scale: Scale, axis: str, label: str) -> tuple[Element, Along, Along]:
    """Return an empty chart with its axes."""
    ticks = [f"{tick:.6g}" for tick in y_scale.ticks()]
    left = max(max(map(len, ticks), default=0) * LETTER + 14, 44)
    root = svg(_WIDTH, _HEIGHT, f"{label} along {axis}", "chart")
    x, y = Along(x_scale, left, _WIDTH - 14), Along(y_scale, _HEIGHT - _BOTTOM, _TOP)
    for tick, words in zip(y_scale.ticks(), ticks, strict=True):
        line(root, "grid", left, y(tick), x.end, y(tick))
        text(root, words, left - 8, y(tick) + 5, "end")
    for tick in x_scale.ticks():
        text(root, f"{tick:.6g}", x(tick), _HEIGHT - _BOTTOM + 20, "middle")
    text(root, axis, (x.start + x.end) / 2, _HEIGHT - 6, "middle")
    return root, x, y


def _number(value: float | None) -> float:
    return math.nan if value is None else value
