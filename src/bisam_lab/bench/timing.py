"""Time steps and count passes, for ``bisam bench`` and for ``benchmarks/step.py``."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data import Examples
from .contestants import Contestant
from .result import PassesPerStep

__all__ = ["Runner", "in_turn", "timed", "whole_cycles"]

T = TypeVar("T")

#: Steps before the first one that counts, at least.
WARM_UP = 3
#: Steps in a measurement, at most.
MOST = 5000


def timed(run: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Return the result of ``run`` and its seconds, with the device synchronised before and after."""
    _wait(device)
    start = time.perf_counter()
    result = run()
    _wait(device)
    return result, time.perf_counter() - start


def in_turn(items: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """Yield, for each round, the items in the order in which to time them. Each round begins with another item."""
    for number in range(rounds):
        start = number % max(1, len(items))
        yield [*items[start:], *items[:start]]


class Runner:
    """Runs one contestant, and keeps the seconds, ratios and passes of the timed steps.

    Args:
        contestant: takes the steps.
        batches: used in turn.
        device: synchronised before and after a measurement, not during it.
    """

    def __init__(self, contestant: Contestant, batches: Sequence[Examples], device: torch.device) -> None:
        self.contestant, self.device = contestant, device
        self.seconds: list[float] = []
        self.ratios: list[float] = []
        self._batch = len(batches[0])
        self._batches: Iterator[Examples] = itertools.cycle(batches)
        self._steps, self._samples, self._looked = 0, 0, 0
        contestant.model.register_forward_pre_hook(self._see)

    def warm_up(self) -> None:
        """Run a whole cycle and a few steps, untimed."""
        self._run(whole_cycles(WARM_UP, self.contestant.cycle))
        _wait(self.device)
        self._steps = self._samples = self._looked = 0

    def time(self, steps: int) -> float:
        """Run ``steps`` steps, in whole cycles, and return the seconds of a mean step."""
        steps = whole_cycles(steps, self.contestant.cycle)
        _, seconds = timed(lambda: self._run(steps), self.device)
        self.seconds.append(seconds / steps)
        return self.seconds[-1]

    def time_beside(self, base: "Runner", steps: int) -> None:
        """Time the base, then this one, and keep the ratio."""
        floor = base.time(steps)
        self.ratios.append(self.time(steps) / floor)

    def steps_for(self, seconds: float) -> int:
        """Return how many steps take ``seconds``. Only the last measurement on the way is kept."""
        steps = 1
        while (took := self.time(steps) * steps) < seconds and steps < MOST:
            steps = min(MOST, max(steps + 1, math.ceil(1.1 * steps * seconds / took)))
        del self.seconds[:-1]
        return steps

    @property
    def passes(self) -> PassesPerStep:
        """Passes of a mean timed step."""
        pairs, forward = (seen / self._batch / self._steps for seen in (self._samples, self._looked))
        return PassesPerStep(pairs, pairs, forward)

    def _run(self, steps: int) -> None:
        self._steps += steps
        self.contestant.run(itertools.islice(self._batches, steps))

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        samples = len(args[0]) if isinstance(args[0], Tensor) else self._batch
        if torch.is_grad_enabled():
            self._samples += samples
        else:
            self._looked += samples


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def whole_cycles(steps: int, cycle: int) -> int:
    """Return ``steps``, rounded up to a multiple of ``cycle``."""
    return math.ceil(steps / cycle) * cycle
