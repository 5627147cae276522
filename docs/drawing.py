"""Draws the site's own figures as SVG that lies in the page, so that its colours follow the page's light and dark."""

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Plot", "Point"]

Point = tuple[float, float]


class Plot:
    """A drawing with axes of its own. Classes name what is drawn; ``docs/assets/site.css`` gives the colours.

    Args:
        size: width and height, in units of the drawing.
        x: lowest and highest value that is drawn.
        y: the same upwards.
        pad: left, top, right and bottom, in units of the drawing.
    """

    def __init__(
        self,
        size: tuple[int, int],
        x: tuple[float, float],
        y: tuple[float, float],
        pad: tuple[int, int, int, int] = (34, 12, 12, 34),
    ) -> None:
        self.size, self.x, self.y, self.pad = size, x, y, pad
        self.parts: list[str] = []

    def at(self, point: Point) -> Point:
        """Return the place of a point in the drawing."""
        left, top, right, bottom = self.pad
        (x0, x1), (y0, y1) = self.x, self.y
        across = left + (point[0] - x0) / (x1 - x0) * (self.size[0] - left - right)
        down = self.size[1] - bottom - (point[1] - y0) / (y1 - y0) * (self.size[1] - top - bottom)
        return across, down

    def line(self, points: Iterable[Point], kind: str) -> None:
        """Draw a line through points; it is cut where it leaves the axes."""
        self.parts.append(f'<path class="{kind}" d="{self._path(points)}"/>')

    def area(self, points: Sequence[Point], kind: str) -> None:
        """Fill a polygon."""
        self.parts.append(f'<path class="{kind}" d="{self._path(points)}Z"/>')

    def dot(self, point: Point, kind: str, radius: float = 5) -> None:
        """Draw a dot, ``radius`` in units of the drawing."""
        x, y = self.at(point)
        self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def arrow(self, start: Point, end: Point, kind: str, head: float = 8) -> None:
        """Draw an arrow, its head at ``end``."""
        (x0, y0), (x1, y1) = self.at(start), self.at(end)
        turn = math.atan2(y1 - y0, x1 - x0)
        wings = [(x1 - head * math.cos(turn + side), y1 - head * math.sin(turn + side)) for side in (-0.45, 0.45)]
        path = f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" + "".join(
            f"M{a:.1f} {b:.1f}L{x1:.1f} {y1:.1f}" for a, b in wings
        )
        self.parts.append(f'<path class="{kind}" d="{path}"/>')

    def text(self, words: str, point: Point, kind: str = "", anchor: str = "middle", shift: Point = (0, 0)) -> None:
        """Write words at a point, moved by ``shift`` in units of the drawing."""
        x, y = self.at(point)
        name = f' class="{kind}"' if kind else ""
        place = f'x="{x + shift[0]:.1f}" y="{y + shift[1]:.1f}" text-anchor="{anchor}"'
        self.parts.append(f"<text{name} {place}>{escape(words)}</text>")

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[float] = (), y_ticks: Sequence[float] = ()) -> None:
        """Draw the two axes with their labels and ticks."""
        (x0, x1), (y0, y1) = self.x, self.y
        self.line([(x0, y1), (x0, y0), (x1, y0)], "axis")
        for tick in x_ticks:
            self.text(f"{tick:g}".replace("-", "\u2212"), (tick, y0), "tick", shift=(0, 15))
        for tick in y_ticks:
            self.text(f"{tick:g}".replace("-", "\u2212"), (x0, tick), "tick", "end", (-6, 4))
        self.text(x_label, ((x0 + x1) / 2, y0), shift=(0, 29 if x_ticks else 20))
        self.text(y_label, (x0, y1), anchor="start", shift=(6, -2))

    def svg(self, told: str) -> str:
        """Return the drawing as SVG; ``told`` is what it shows, for those who do not see it."""
        view = f'viewBox="0 0 {self.size[0]} {self.size[1]}" role="img" aria-label="{escape(told)}"'
        return f"<svg {view}>{''.join(self.parts)}</svg>"

    def _path(self, points: Iterable[Point]) -> str:
        path, pen = "", "M"
        for point in points:
            if not (self.y[0] - 1e-9 <= point[1] <= self.y[1] + 1e-9):
                pen = "M"
                continue
            x, y = self.at(point)
            path += f"{pen}{x:.1f} {y:.1f}"
            pen = "L"
        return path
