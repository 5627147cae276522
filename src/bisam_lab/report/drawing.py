"""The parts that the page's charts are made of, as SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from .scale import Scale

__all__ = ["LETTER", "Along", "add", "line", "markup", "path", "plain", "series", "svg", "text"]

#: Width of a letter of the labels, on a phone too.
LETTER = 9.8


@dataclass(frozen=True)
class Along:
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


def svg(width: float, height: float, label: str, name: str = "chart") -> Element:
    """Return an empty drawing with its label for those who cannot see it."""
    return Element(
        "svg",
        {
            "viewBox": f"0 0 {plain(width)} {plain(height)}",
            "class": name,
            "role": "img",
            "tabindex": "0",
            "aria-label": f"Chart: {label}. Arrow keys read the values.",
        },
    )


def add(parent: Element, tag: str, attributes: dict[str, Any]) -> Element:
    """Add an element. Numbers are rounded to a tenth; None leaves an attribute out."""
    kept = {key: plain(value) if isinstance(value, float | int) else value for key, value in attributes.items()}
    return SubElement(parent, tag, {key: value for key, value in kept.items() if value is not None})


def series(parent: Element, names: str, method: str, seed: int | None = None) -> Element:
    """Return a group that the filters of a method, and of a seed, hide."""
    return add(
        parent,
        "g",
        {"class": f"series {names}", "data-method": method, "data-seed": None if seed is None else str(seed)},
    )


def line(parent: Element, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
    """Add a line."""
    add(parent, "line", {"class": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def text(parent: Element, words: str, x: float, y: float, anchor: str, name: str | None = None) -> None:
    """Add a text; ``anchor`` is start, middle or end."""
    add(parent, "text", {"x": x, "y": y, "text-anchor": anchor, "class": name}).text = words


def path(points: Iterable[Sequence[float]], x: Along, y: Along) -> str:
    """Return a path through the points. It is interrupted at a point that is NaN or not on a logarithmic axis."""
    found, pen = "", "M"
    for at, value in points:
        if not math.isfinite(value) or (y.scale.log and value <= 0):
            pen = "M"
            continue
        found += f"{pen}{plain(x(at))} {plain(y(value))}"
        pen = "L"
    return found


def plain(number: float) -> str:
    """Return a number rounded to a tenth."""
    return f"{number:.1f}".removesuffix(".0")


def markup(root: Element) -> Markup:
    """Return the drawing as text."""
    return Markup(tostring(root, encoding="unicode"))  # ElementTree has escaped every name
