"""Draw the charts of runs and comparisons as SVG. They are complete without a script.

The page's script hides methods and seeds, shows every seed's curve, and tells the values under the pointer.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from .block import Block
from .charts import CurveChart, DifferenceRow, Line, difference_chart
from .drawing import LETTER, Along, add, line, markup, path, series, svg, text
from .quantities import AXES, QUANTITIES
from .words import count_of, short, signed

__all__ = ["draw_curves", "draw_differences"]

Style = Callable[[str], str]

_WIDTH, _HEIGHT = 560, 330
_SMALL = (400, 250)
_NARROW, _ROW = 440, 80
_TOP, _BOTTOM = 14, 46
#: With more methods their names do not fit beside each other at the ends of their lines.
_NAMED = 14


def draw_curves(chart: CurveChart, name: str, style: Style, *, small: bool = False) -> Markup:
    """Draw learning curves, with each method's name at the end of its line.

    Args:
        chart: what is drawn.
        name: of the chart, unique on the page.
        style: returns the CSS classes of a method.
        small: one of many, without names.
    """
    width, height = _SMALL if small else (_WIDTH, _HEIGHT)
    ticks = [f"{tick:.6g}" for tick in chart.y.ticks(4 if small else 5)]
    left = max(max(map(len, ticks), default=0) * LETTER + 14, 44)
    named = not small and 0 < len(chart.lines) <= _NAMED
    label = max(len(_label(one, chart)) for one in chart.lines) * LETTER + 12 if named else 14
    x, y = Along(chart.x, left, width - label), Along(chart.y, height - _BOTTOM, _TOP)
    axis = AXES[chart.axis]
    root = svg(width, height, f"{chart.label} {axis.words}", "chart small" if small else "chart")
    scale = {"x": x.plain, "y": y.plain, "log": chart.y.log, "digits": QUANTITIES[chart.quantity].digits}
    root.attrib |= {
        "data-quantity": chart.quantity,
        "data-axis": chart.axis,
        "data-scale": json.dumps(scale | {"tip": axis.tip}),
        "data-lines": json.dumps(list(_points(chart, seeds=not small)), separators=(",", ":")),
    }
    for tick, words in zip(chart.y.ticks(4 if small else 5), ticks, strict=True):
        line(root, "grid", left, y(tick), x.end, y(tick))
        text(root, words, left - 8, y(tick) + 5, "end")
    _floor(root, chart, x, height)
    area = _clipped(root, f"clip-{name}", x, height)
    for one in chart.lines if not small else ():
        for seed, points in one.seeds.items() if len(one.seeds) > 1 else ():
            thin = series(area, style(one.method), one.method, seed)
            add(thin, "path", {"class": "seed", "d": path(points, x, y)})
    for one in chart.lines:
        _mean(area, one, x, y, style)
    if named:
        _labels(root, chart, x, y, style, height)
    return markup(root)


def draw_differences(block: Block, style: Style) -> Markup:
    """Draw a lane per method: its name and its numbers, and below them a dot per seed, the mean and its interval."""
    chart = difference_chart(block)
    height = _ROW * len(chart.rows) + _BOTTOM
    x = Along(chart.x, 16, _NARROW - 16)
    root = svg(_NARROW, height, f"differences to {block.baseline} by method, in points", "chart differences")
    ticks = chart.x.ticks(6)
    for i, row in enumerate(chart.rows):
        lane = series(root, style(row.method), row.method)
        top = i * _ROW + 28
        add(lane, "rect", {"class": "lane", "x": 0, "y": top, "width": _NARROW, "height": _ROW - 36, "rx": 6})
        for tick in ticks:  # in the lanes alone, so that no line crosses a name
            line(lane, "zero" if tick == 0 else "grid", x(tick), top, x(tick), top + _ROW - 36)
        _difference(lane, row, chart.interval, i * _ROW, x)
    floor = _ROW * len(chart.rows) - 8
    for tick in ticks:
        text(root, signed(tick, 6), x(tick), floor + 20, "middle")
    text(root, chart.label, _NARROW / 2, height - 6, "middle")
    return markup(root)


def _difference(lane: Element, row: DifferenceRow, interval: str, top: float, x: Along) -> None:
    """Draw one method's row. At a mean that lies beyond the scale an arrow points."""
    low, high, middle = x.scale.low, x.scale.high, top + 42
    text(lane, short(row.method), 0, top + 20, "start", "name")
    told = f"{signed(row.mean)} [{signed(row.interval[0])}, {signed(row.interval[1])}]" if row.interval else ""
    beyond = " ◀" if row.side < 0 else " ▶" if row.side > 0 else ""
    text(lane, (told or signed(row.mean)) + beyond, _NARROW, top + 20, "end", "told")
    if row.interval is not None and row.interval[1] > low and row.interval[0] < high:
        line(lane, "interval", x(max(row.interval[0], low)), middle, x(min(row.interval[1], high)), middle)
    for seed, difference in row.dots.items():
        if difference in x.scale:
            tip = f"{row.method}, seed {seed}: {signed(difference)} points"
            where = {"cx": x(difference), "cy": top + 58, "r": 5, "class": "dot"}
            add(lane, "circle", where | {"data-method": row.method, "data-seed": str(seed), "data-tip": tip})
    if row.side:
        edge, inwards = (2, 9) if row.side < 0 else (_NARROW - 2, -9)
        arrow = f"M{edge} {middle}l{inwards} -7v14Z"
        tip = f"{_tip(row, interval)}: beyond the axis, which fits the methods without failed runs"
        add(lane, "path", {"class": "diamond", "d": arrow, "data-tip": tip})
    elif math.isfinite(row.mean):
        at = x(row.mean)
        diamond = f"M{at - 7:.1f} {middle}L{at:.1f} {middle - 7}L{at + 7:.1f} {middle}L{at:.1f} {middle + 7}Z"
        add(lane, "path", {"class": "diamond", "d": diamond, "data-tip": _tip(row, interval)})


def _tip(row: DifferenceRow, interval: str) -> str:
    mean = f"{row.method}, mean of {row.pairs} pairs: {signed(row.mean)} points"
    if row.interval is None:
        return mean
    return f"{mean}, {interval} {signed(row.interval[0])} to {signed(row.interval[1])}"


def _points(chart: CurveChart, *, seeds: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines for the script: method, seed, what the tip calls it, and (place, value)."""
    for one in chart.lines:
        alone = f"seed {next(iter(one.seeds))}" if len(one.seeds) == 1 else "mean"
        yield {"m": one.method, "n": f"{one.method}, {alone}", "p": _rounded(one.mean)}
    for one in chart.lines if seeds else ():
        for seed, points in one.seeds.items() if len(one.seeds) > 1 else ():
            finite = [point for point in points if math.isfinite(point[1])]
            yield {"m": one.method, "s": str(seed), "n": f"{one.method}, seed {seed}", "p": _rounded(finite)}


def _rounded(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    return [[float(f"{x:.6g}"), float(f"{y:.6g}")] for x, y in points]


def _mean(area: Element, one: Line, x: Along, y: Along, style: Style) -> None:
    group = series(area, style(one.method), one.method)
    inside = [(at, low, high) for at, low, high in one.band if low in y.scale and high in y.scale]
    for part in _runs_of(inside, [at for at, *_ in one.band]):  # a band is drawn whole or not at all
        outline = [(at, high) for at, _, high in part] + [(at, low) for at, low, _ in reversed(part)]
        add(group, "path", {"class": "band", "d": path(outline, x, y) + "Z"})
    add(group, "path", {"class": "mean", "d": path(one.mean, x, y)})
    if len(one.mean) == 1:  # a path of one point is nothing to see
        at, value = one.mean[0]
        add(group, "circle", {"class": "only", "cx": x(at), "cy": y(value), "r": 4})


def _runs_of(
    kept: Sequence[tuple[float, float, float]], places: Sequence[float]
) -> Iterator[list[tuple[float, float, float]]]:
    """Yield stretches of neighbours, each of two or more."""
    at, stretch = {entry[0]: entry for entry in kept}, list[tuple[float, float, float]]()
    for place in (*places, math.nan):
        if place in at:
            stretch.append(at[place])
            continue
        if len(stretch) > 1:
            yield stretch
        stretch = []


def _label(one: Line, chart: CurveChart) -> str:
    """Return the name at the end of a line, with an arrow where the line has left the axis."""
    if not one.mean or one.mean[-1][1] in chart.y:
        return short(one.method)
    return f"{short(one.method)} {'↓' if one.mean[-1][1] < chart.y.low else '↑'}"


def _labels(root: Element, chart: CurveChart, x: Along, y: Along, style: Style, height: float) -> None:
    """Write each method's name at the end of its line. Names that would overlap are moved apart."""
    ends = sorted(
        ((y(min(max(one.mean[-1][1], chart.y.low), chart.y.high)), one) for one in chart.lines if one.mean),
        key=lambda pair: pair[0],
    )
    places: list[float] = []
    for end, _ in ends:
        places.append(max(end, places[-1] + 19) if places else end)
    floor = height - _BOTTOM + 0.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], floor)
        floor = places[i] - 19
    for place, (_, one) in zip(places, ends, strict=True):
        text(series(root, style(one.method), one.method), _label(one, chart), x.end + 8, place + 5, "start", "label")


def _clipped(root: Element, name: str, x: Along, height: float) -> Element:
    """Return a group that is clipped to the area between the axes."""
    box = {"x": x.start - 4, "y": _TOP - 6, "width": x.end - x.start + 8, "height": height - _BOTTOM - _TOP + 12}
    add(add(root, "clipPath", {"id": name}), "rect", box)
    return add(root, "g", {"clip-path": f"url(#{name})"})


def _floor(root: Element, chart: CurveChart, x: Along, height: float) -> None:
    """Write the horizontal axis: whole epochs, or round numbers of passes or seconds."""
    for tick in chart.places:
        text(root, count_of(tick), x(tick), height - _BOTTOM + 20, "middle")
    text(root, AXES[chart.axis].label, (x.start + x.end) / 2, height - 6, "middle")
