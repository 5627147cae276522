"""The search for the best rate and radius together: on a grid of powers of two, which grows at its edges."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["BEYOND", "BUDGET", "Point", "Search", "rounded"]

#: Points that a search tries.
BUDGET = 20
#: Points that it tries after that, at most, where the best one lies at an edge.
BEYOND = 8
#: The first points are a factor of 4 apart; the last neighbours of the best one 2 ** FINEST.
COARSE, FINEST = 2.0, 0.25

Point = tuple[float, ...]


class Search:
    """Finds the point with the best mean score.

    It begins with every combination of three values of each number, a factor of 4 apart. Then it tries the neighbours
    of the best point, at the same distance, so that it goes on at an edge. Where all neighbours are tried, it takes
    neighbours that are nearer: a factor of 2 away, of 1.4, of 1.2. It ends after BUDGET points; where the best one then
    lies at an edge, it tries up to BEYOND points more, outside of what it has tried.

    Args:
        middle: the middle one of the first values of each number, > 0.

    Attributes:
        means: score by point, in the order in which they were tried.
    """

    def __init__(self, *middle: float) -> None:
        self.means: dict[Point, float] = {}
        self._middle, self._step = middle, COARSE
        self._places: dict[tuple[float, ...], Point] = {}

    def next(self) -> list[Point]:
        """Return the points to try next; none where the search has ended."""
        if not self._places:
            return self._asked(itertools.product((-COARSE, 0.0, COARSE), repeat=len(self._middle)))
        while self._step >= FINEST:
            near = [place for place in self._neighbours() if place not in self._places]
            left = BUDGET - len(self.means)
            if left <= 0:
                outside = [place for place in near if self._outside(place)]
                return self._asked(outside[: left + BEYOND])
            if near:
                return self._asked(near[:left])
            self._step /= 2
        return []

    def tell(self, means: Mapping[Point, float]) -> None:
        """Enter the scores of points that were asked for."""
        self.means.update(means)

    def best(self, n: int) -> list[Point]:
        """Return the n points with the best means, the best one first; of two equal ones the smaller one."""
        return sorted(self.means, key=lambda point: (-self.means[point], point))[:n]

    def at_edge(self, point: Point) -> tuple[bool, ...]:
        """Return whether each number of a point is the least or the largest one that was tried."""
        return tuple(
            value in (min(tried), max(tried)) for value, tried in zip(point, zip(*self.means, strict=True), strict=True)
        )

    @property
    def _tried(self) -> Sequence[tuple[float, ...]]:
        """The values of each number that were tried, as powers of two beside the middle."""
        return list(zip(*self._places, strict=True))

    def _neighbours(self) -> Iterator[tuple[float, ...]]:
        (first,) = self.best(1)
        best = next(place for place, point in self._places.items() if point == first)
        for number, sign in itertools.product(range(len(best)), (-1, 1)):
            yield (*best[:number], best[number] + sign * self._step, *best[number + 1 :])

    def _outside(self, place: tuple[float, ...]) -> bool:
        return any(not min(tried) <= value <= max(tried) for value, tried in zip(place, self._tried, strict=True))

    def _asked(self, places: Iterable[tuple[float, ...]]) -> list[Point]:
        new = {
            place: tuple(rounded(start * 2.0**power) for start, power in zip(self._middle, place, strict=True))
            for place in places
        }
        self._places |= new
        return list(new.values())


def rounded(value: float) -> float:
    """Return a rate or radius with four digits, as it stands in names and tables."""
    return float(f"{value:.4g}")
