"""Charts as SVG, whole without a script; the page's script only hides parts of them and reads values out."""

import json
import math
from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from ..run.result import Epoch, RunResult
from ..statistics import Comparison
from .axes import Axis, fit
from .collect import Block, Curve, Difference
from .words import metric_name, signed

__all__ = ["differences", "learning_curves"]

_WIDTH, _HEIGHT = 560, 330
_NARROW, _ROW = 440, 64
_LEFT, _TOP, _BOTTOM = 54, 14, 46
_LETTER = 9.2  # width of a letter of the labels, on a phone too

Style = Callable[[str], str]


def learning_curves(block: Block, quantity: str, place: str, style: Style) -> Markup:
    """Draw a line a method with its band, thin lines a seed, and the method's name at the end.

    Args:
        block: whose curves.
        quantity: ``validation_score`` or ``train_loss``.
        place: names the block in the page's data.
        style: class of a method's colour.
    """
    score = quantity == "validation_score"
    factor = 100.0 if score else 1.0
    title = f"validation {metric_name(block.metric)}" if score else "training loss"
    label = max((len(_short(method)) for method in block.methods), default=0) * _LETTER + 12
    last = max((epoch.epoch for run in block.runs for epoch in run.history), default=1)
    values = [factor * getattr(epoch, quantity) for epoch in _telling(block.runs, last)]
    y = fit(values, _HEIGHT - _BOTTOM, _TOP, log=not score)
    x = Axis(1, max(last, 2), _LEFT, _WIDTH - label)
    svg = _svg(_WIDTH, _HEIGHT, f"{title}{' (%)' if block.metric == 'accuracy' and score else ''} by epoch")
    svg.attrib |= {
        "data-block": place,
        "data-quantity": quantity,
        "data-scale": json.dumps(
            {"x": [x.low, x.high, x.start, x.end], "y": [y.low, y.high, y.start, y.end], "log": y.log, "factor": factor}
        ),
    }
    _grid(svg, y)
    _whole_numbers(svg, x)
    lines = _clipped(svg, f"clip-{place}-{quantity}", x.end)
    for run in block.runs:
        points = [(epoch.epoch, factor * getattr(epoch, quantity)) for epoch in run.history]
        thin = _series(lines, run.method, style, run.seed)
        SubElement(thin, "path", {"class": "seed", "d": _path(points, x, y)})
    for curve in block.curves:
        _mean(lines, curve, quantity, factor, x, y, style)
    _labels(svg, block.curves, quantity, factor, x, y, style)
    return _markup(svg)


def differences(block: Block, style: Style) -> Markup:
    """Draw each method's differences to the baseline, a dot a seed, with mean and 95 % interval."""
    rows = [row for row in block.comparison if row.method != block.baseline]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    whole = [row for row in rows if not row.collapsed + row.diverged] or rows
    ends = [end for row in whole for end in (row.low, row.high)]
    dots = [d.difference for d in block.differences if d.method in {row.method for row in whole}]
    x = fit([0.0, *ends, *dots], 16, _NARROW - 16, pad=0.06)
    svg = _svg(_NARROW, height, f"differences to {block.baseline} by method, in points")
    floor = height - _BOTTOM
    for tick in x.ticks(6):
        _line(svg, "zero" if tick == 0 else "grid", x(tick), _TOP, x(tick), floor)
        _text(svg, signed(tick, 6), x(tick), floor + 20, "middle")
    _text(
        svg,
        f"test {metric_name(block.metric)} minus that of {_short(block.baseline)} (points)",
        _NARROW / 2,
        height - 6,
        "middle",
    )
    for i, row in enumerate(rows):
        group = _series(svg, row.method, style)
        _difference(group, row, block.differences, _TOP + i * _ROW, x)
    return _markup(svg)


def _difference(group: Element, row: Comparison, every: Sequence[Difference], top: float, x: Axis) -> None:
    """Draw one method's row; what a failed run has moved off the axis is written at its edge."""
    _text(group, row.method, x.start, top + 18, "start", "name")
    middle = top + 33
    bounded = math.isfinite(row.low) and math.isfinite(row.high)
    if bounded and row.high > x.low and row.low < x.high:
        _line(group, "interval", x(max(row.low, x.low)), middle, x(min(row.high, x.high)), middle)
    for dot in every:
        if dot.method == row.method and x.low <= dot.difference <= x.high:
            where = {"cx": _number(x(dot.difference)), "cy": _number(top + 48), "r": "5", "class": "dot"}
            tip = f"{dot.method}, seed {dot.seed}: {signed(dot.difference)} points"
            names = {"data-method": dot.method, "data-seed": str(dot.seed), "data-tip": tip}
            SubElement(group, "circle", where | names)
    if not math.isfinite(row.difference):
        return
    tip = f"{row.method}, mean of {row.pairs} pairs: {signed(row.difference)} points"
    tip += f", 95 % interval {signed(row.low)} to {signed(row.high)}" if bounded else ""
    if x.low <= row.difference <= x.high:
        at = x(row.difference)
        diamond = f"M{at - 7:.1f} {middle}L{at:.1f} {middle - 7}L{at + 7:.1f} {middle}L{at:.1f} {middle + 7}Z"
        SubElement(group, "path", {"class": "diamond", "d": diamond, "data-tip": tip})
    elif row.difference < x.low:
        _text(group, f"◀ mean {signed(row.difference)}", x.start, top + 52, "start", "beyond")
    else:
        _text(group, f"mean {signed(row.difference)} ▶", x.end, top + 52, "end", "beyond")


def _telling(runs: Sequence[RunResult], last: int) -> list[Epoch]:
    """Return the epochs that choose the axis: of runs that did not fail, in a long training after its steep start."""
    whole = [run for run in runs if run.status == "ok"] or runs
    steep = last // 5 if last >= 10 else 0
    return [epoch for run in whole for epoch in run.history if epoch.epoch > steep]


def _mean(svg: Element, curve: Curve, quantity: str, factor: float, x: Axis, y: Axis, style: Style) -> None:
    group = _series(svg, curve.method, style)
    triples = [
        (epoch, factor * mean, factor * spread)
        for epoch, mean, spread in zip(
            curve.epoch, getattr(curve, quantity), getattr(curve, f"{quantity}_std"), strict=True
        )
        if math.isfinite(mean)
    ]
    band = [(epoch, mean, spread) for epoch, mean, spread in triples if math.isfinite(spread)]
    if len(band) > 1:
        least = y.low if y.log else -math.inf
        outline = [(epoch, mean + spread) for epoch, mean, spread in band]
        outline += [(epoch, max(mean - spread, least)) for epoch, mean, spread in reversed(band)]
        SubElement(group, "path", {"class": "band", "d": _path(outline, x, y) + "Z"})
    SubElement(group, "path", {"class": "mean", "d": _path([point[:2] for point in triples], x, y)})


def _labels(
    svg: Element, curves: Sequence[Curve], quantity: str, factor: float, x: Axis, y: Axis, style: Style
) -> None:
    """Write each method's name where its line ends, pushed apart where lines end close to each other."""
    ends = []
    for curve in curves:
        seen = [(epoch, v) for epoch, v in zip(curve.epoch, getattr(curve, quantity), strict=True) if math.isfinite(v)]
        if seen:
            inside = min(max(factor * seen[-1][1], y.low), y.high)
            ends.append((y(inside), curve.method))
    ends.sort()
    places: list[float] = []
    for end, _ in ends:
        places.append(max(end, places[-1] + 17) if places else end)
    floor = _HEIGHT - _BOTTOM + 0.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], floor)
        floor = places[i] - 17
    for place, (_, method) in zip(places, ends, strict=True):
        _text(_series(svg, method, style), _short(method), x.end + 8, place + 5, "start", "label")


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
    """Return a group of which only what lies between the axes shows."""
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


def _grid(svg: Element, y: Axis) -> None:
    for tick in y.ticks():
        _line(svg, "grid", _LEFT, y(tick), _WIDTH, y(tick))
        _text(svg, f"{tick:.6g}", _LEFT - 8, y(tick) + 5, "end")


def _whole_numbers(svg: Element, x: Axis) -> None:
    step = max(1, math.ceil((x.high - x.low) / 7))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, step) if s >= step)
    for epoch in range(1, int(x.high) + 1):
        if epoch == 1 or (epoch % step == 0 and epoch - 1 >= step / 2):
            _text(svg, str(epoch), x(epoch), _HEIGHT - _BOTTOM + 20, "middle")
    _text(svg, "epoch", (x.start + x.end) / 2, _HEIGHT - 6, "middle")


def _line(parent: Element, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {"class": name, **{key: _number(value) for key, value in ends.items()}})


def _text(parent: Element, words: str, x: float, y: float, anchor: str, name: str = "") -> None:
    place = {"x": _number(x), "y": _number(y), "text-anchor": anchor}
    SubElement(parent, "text", place | ({"class": name} if name else {})).text = words


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return a path through the points; one that is no number, or not on the axis, breaks it."""
    path, pen = "", "M"
    for at, value in points:
        if not math.isfinite(value) or (y.log and value <= 0):
            pen = "M"
            continue
        path += f"{pen}{_number(x(at))} {_number(y(value))}"
        pen = "L"
    return path


def _short(method: str) -> str:
    return method if len(method) <= 18 else f"{method[:17]}…"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # ElementTree has escaped every name
