"""Draw the charts of a comparison as SVG. They are complete without a script.

The page's script hides methods and seeds, and shows the values under the pointer.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from .block import Block, Quantity
from .charts import CurveChart, DifferenceRow, Line, curve_chart, difference_chart
from .scale import Scale
from .words import short, signed

__all__ = ["draw_curves", "draw_differences"]

_WIDTH, _HEIGHT = 560, 330
_NARROW, _ROW = 440, 64
_LEFT, _TOP, _BOTTOM = 54, 14, 46
_LETTER = 9.2  # width of a letter of the labels, on a phone too

Style = Callable[[str], str]


@dataclass(frozen=True)
class _Axis:
    """A scale from ``start`` to ``end`` of the drawing."""

    scale: Scale
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + self.scale.fraction(value) * (self.end - self.start)

    @property
    def plain(self) -> list[float]:
        """Range of values and range of places, as the page's script reads them."""
        return [self.scale.low, self.scale.high, self.start, self.end]


def draw_curves(block: Block, quantity: Quantity, place: str, style: Style) -> Markup:
    """Draw learning curves, with each method's name at the end of its line.

    Args:
        block: whose curves.
        quantity: what they show.
        place: where the block is in the page's data.
        style: returns the CSS classes of a method.
    """
    chart = curve_chart(block, quantity)
    label = max((len(short(line.method)) for line in chart.lines), default=0) * _LETTER + 12
    x = _Axis(chart.x, _LEFT, _WIDTH - label)
    y = _Axis(chart.y, _HEIGHT - _BOTTOM, _TOP)
    svg = _svg(_WIDTH, _HEIGHT, f"{chart.label} by epoch")
    svg.attrib |= {
        "data-block": place,
        "data-quantity": quantity,
        "data-scale": json.dumps({"x": x.plain, "y": y.plain, "log": chart.y.log, "factor": chart.factor}),
    }
    _grid(svg, y)
    _whole_numbers(svg, x)
    lines = _clipped(svg, f"clip-{place}-{quantity}", x.end)
    for line in chart.lines:
        for seed, points in line.seeds.items():
            thin = _series(lines, line.method, style, seed)
            SubElement(thin, "path", {"class": "seed", "d": _path(points, x, y)})
    for line in chart.lines:
        _mean(lines, line, x, y, style)
    _labels(svg, chart, x, y, style)
    return _markup(svg)


def draw_differences(block: Block, style: Style) -> Markup:
    """Draw a row per method: a dot per seed, the mean as a diamond, and its interval."""
    chart = difference_chart(block)
    height = _TOP + _ROW * len(chart.rows) + _BOTTOM
    x = _Axis(chart.x, 16, _NARROW - 16)
    svg = _svg(_NARROW, height, f"differences to {block.baseline} by method, in points")
    floor = height - _BOTTOM
    for tick in chart.x.ticks(6):
        _line(svg, "zero" if tick == 0 else "grid", x(tick), _TOP, x(tick), floor)
        _text(svg, signed(tick, 6), x(tick), floor + 20, "middle")
    _text(svg, chart.label, _NARROW / 2, height - 6, "middle")
    for i, row in enumerate(chart.rows):
        _difference(_series(svg, row.method, style), row, chart.interval, _TOP + i * _ROW, x)
    return _markup(svg)


def _difference(group: Element, row: DifferenceRow, interval: str, top: float, x: _Axis) -> None:
    """Draw one method's row. A mean that lies beyond the scale is written at the edge."""
    low, high, middle = x.scale.low, x.scale.high, top + 33
    _text(group, row.method, x.start, top + 18, "start", "name")
    if row.interval is not None and row.interval[1] > low and row.interval[0] < high:
        _line(group, "interval", x(max(row.interval[0], low)), middle, x(min(row.interval[1], high)), middle)
    for seed, difference in row.dots.items():
        if difference in x.scale:
            where = {"cx": _number(x(difference)), "cy": _number(top + 48), "r": "5", "class": "dot"}
            tip = f"{row.method}, seed {seed}: {signed(difference)} points"
            SubElement(group, "circle", where | {"data-method": row.method, "data-seed": str(seed), "data-tip": tip})
    if not math.isfinite(row.mean):
        return
    if row.side < 0:
        _text(group, f"◀ mean {signed(row.mean)}", x.start, top + 52, "start", "beyond")
    elif row.side > 0:
        _text(group, f"mean {signed(row.mean)} ▶", x.end, top + 52, "end", "beyond")
    else:
        at = x(row.mean)
        diamond = f"M{at - 7:.1f} {middle}L{at:.1f} {middle - 7}L{at + 7:.1f} {middle}L{at:.1f} {middle + 7}Z"
        SubElement(group, "path", {"class": "diamond", "d": diamond, "data-tip": _tip(row, interval)})


def _tip(row: DifferenceRow, interval: str) -> str:
    mean = f"{row.method}, mean of {row.pairs} pairs: {signed(row.mean)} points"
    if row.interval is None:
        return mean
    return f"{mean}, {interval} {signed(row.interval[0])} to {signed(row.interval[1])}"


def _mean(svg: Element, line: Line, x: _Axis, y: _Axis, style: Style) -> None:
    group = _series(svg, line.method, style)
    if len(line.band) > 1:
        least = y.scale.low if y.scale.log else -math.inf
        outline = [(epoch, high) for epoch, _, high in line.band]
        outline += [(epoch, max(low, least)) for epoch, low, _ in reversed(line.band)]
        SubElement(group, "path", {"class": "band", "d": _path(outline, x, y) + "Z"})
    SubElement(group, "path", {"class": "mean", "d": _path(line.mean, x, y)})


def _labels(svg: Element, chart: CurveChart, x: _Axis, y: _Axis, style: Style) -> None:
    """Write each method's name at the end of its line. Names that would overlap are moved apart."""
    ends = sorted(
        (y(min(max(line.mean[-1][1], chart.y.low), chart.y.high)), line.method) for line in chart.lines if line.mean
    )
    places: list[float] = []
    for end, _ in ends:
        places.append(max(end, places[-1] + 17) if places else end)
    floor = _HEIGHT - _BOTTOM + 0.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], floor)
        floor = places[i] - 17
    for place, (_, method) in zip(places, ends, strict=True):
        _text(_series(svg, method, style), short(method), x.end + 8, place + 5, "start", "label")


def _svg(width: float, height: float, label: str) -> Element:
    return Element(
        "svg",
        {
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
            "class": "chart",
            "role": "img",
            "tabindex": "0",
            "aria-label": f"Chart: {label}. Arrow keys read the values.",
        },
    )


def _clipped(svg: Element, name: str, right: float) -> Element:
    """Return a group that is clipped to the area between the axes."""
    box = {
        "x": "0",
        "y": _number(_TOP - 4),
        "width": _number(right + 4),
        "height": _number(_HEIGHT - _BOTTOM - _TOP + 8),
    }
    SubElement(SubElement(svg, "clipPath", {"id": name}), "rect", box)
    return SubElement(svg, "g", {"clip-path": f"url(#{name})"})


def _series(svg: Element, method: str, style: Style, seed: int | None = None) -> Element:
    names = {"class": f"series {style(method)}", "data-method": method}
    return SubElement(svg, "g", names if seed is None else names | {"data-seed": str(seed)})


def _grid(svg: Element, y: _Axis) -> None:
    for tick in y.scale.ticks():
        _line(svg, "grid", _LEFT, y(tick), _WIDTH, y(tick))
        _text(svg, f"{tick:.6g}", _LEFT - 8, y(tick) + 5, "end")


def _whole_numbers(svg: Element, x: _Axis) -> None:
    step = max(1, math.ceil((x.scale.high - x.scale.low) / 7))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, step) if s >= step)
    for epoch in range(1, int(x.scale.high) + 1):
        if epoch == 1 or (epoch % step == 0 and epoch - 1 >= step / 2):
            _text(svg, str(epoch), x(epoch), _HEIGHT - _BOTTOM + 20, "middle")
    _text(svg, "epoch", (x.start + x.end) / 2, _HEIGHT - 6, "middle")


def _line(parent: Element, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {"class": name, **{key: _number(value) for key, value in ends.items()}})


def _text(parent: Element, words: str, x: float, y: float, anchor: str, name: str = "") -> None:
    place = {"x": _number(x), "y": _number(y), "text-anchor": anchor}
    SubElement(parent, "text", place | ({"class": name} if name else {})).text = words


def _path(points: Sequence[tuple[float, float]], x: _Axis, y: _Axis) -> str:
    """Return a path through the points. It is interrupted at a point that is NaN or not on a logarithmic axis."""
    path, pen = "", "M"
    for at, value in points:
        if not math.isfinite(value) or (y.scale.log and value <= 0):
            pen = "M"
            continue
        path += f"{pen}{_number(x(at))} {_number(y(value))}"
        pen = "L"
    return path


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # ElementTree has escaped every name
