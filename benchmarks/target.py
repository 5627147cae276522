"""A target: what something may cost beside something else, measured in turn in one process."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from bisam_lab.bench.result import quartiles

__all__ = ["Target", "in_turn", "threads"]


@dataclass(frozen=True)
class Target:
    """What something may cost.

    Attributes:
        section: of the table.
        name: what is measured, and where.
        beside: what the ratio is to.
        at_most: the bound of the median.
        ratios: one a round; a single number where it is counted, as bytes are.
        why: the reason, found by a profile or a count, where the bound does not hold.
    """

    section: str
    name: str
    beside: str
    at_most: float
    ratios: tuple[float, ...] = field(repr=False)
    why: str = ""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile."""
        return quartiles(self.ratios)

    @property
    def holds(self) -> bool:
        """Whether the median, to two digits after the point, is within the bound."""
        return round(self.quartiles[1], 2) <= self.at_most


def in_turn(
    runs: Mapping[str, Callable[[], object]], floor: str, rounds: int, seconds: float = 0.1
) -> dict[str, tuple[float, ...]]:
    """Time every run in every round, and return each one's ratios to the run ``floor`` of the same round.

    A run is repeated within a round until ``seconds`` have passed, as often in every round, after one repetition that
    does not count: it finds the caches and the heap as another run has left them. Each round begins with another run,
    so that a machine whose speed drifts tells the same. One round before the first one warms up.

    Args:
        runs: by name; they take no argument.
        floor: the name of the run that the others are divided by.
        rounds: number of rounds.
        seconds: what a measurement takes, at least.
    """
    repeats = {name: _repeats(run, seconds) for name, run in runs.items()}
    names = list(runs)
    ratios: dict[str, list[float]] = {name: [] for name in runs if name != floor}
    for number in range(rounds + 1):
        start = number % len(names)
        took = {name: _time(runs[name], repeats[name]) for name in (*names[start:], *names[:start])}
        if number:
            for name, found in ratios.items():
                found.append(took[name] / took[floor])
    return {name: tuple(found) for name, found in ratios.items()}


def _time(run: Callable[[], object], repeats: int) -> float:
    run()
    _wait()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait()
    return (time.perf_counter() - start) / repeats


def _repeats(run: Callable[[], object], seconds: float) -> int:
    run()
    fastest = min(_time(run, 1) for _ in range(3))
    return max(1, math.ceil(seconds / max(1e-7, fastest)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
