"""Steps timed, passes counted."""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Examples
from .contestants import Contestant
from .result import Passes

__all__ = ["Runner", "whole_cycles"]

#: Steps before the first that counts, at least.
WARM_UP = 3
#: Steps of a measurement, at most.
MOST = 5000


class Runner:
    """Runs one contestant, and keeps the seconds, ratios and passes of what was timed.

    Args:
        contestant: who runs.
        batches: taken in turn.
        device: waited for before and after a measurement, and never within.
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
        self._wait()
        self._steps = self._samples = self._looked = 0

    def time(self, steps: int) -> float:
        """Run so many steps, in whole cycles, and return the seconds of a mean one."""
        steps = whole_cycles(steps, self.contestant.cycle)
        self._wait()
        start = time.perf_counter()
        self._run(steps)
        self._wait()
        self.seconds.append((time.perf_counter() - start) / steps)
        return self.seconds[-1]

    def time_beside(self, base: "Runner", steps: int) -> None:
        """Time the base, then this one, and keep the ratio: what the machine does besides, it does to both."""
        floor = base.time(steps)
        self.ratios.append(self.time(steps) / floor)

    def steps_for(self, seconds: float) -> int:
        """Return how many steps take so long; of what is measured on the way the last is kept."""
        steps = 1
        while (took := self.time(steps) * steps) < seconds and steps < MOST:
            steps = min(MOST, max(steps + 1, math.ceil(1.1 * steps * seconds / took)))
        del self.seconds[:-1]
        return steps

    @property
    def passes(self) -> Passes:
        """Passes of a mean step, of those that were timed."""
        pairs, forward = (seen / self._batch / self._steps for seen in (self._samples, self._looked))
        return Passes(pairs, pairs, forward)

    def _run(self, steps: int) -> None:
        self._steps += steps
        self.contestant.run(itertools.islice(self._batches, steps))

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        samples = len(args[0]) if isinstance(args[0], Tensor) else self._batch
        if torch.is_grad_enabled():
            self._samples += samples
        else:
            self._looked += samples


def whole_cycles(steps: int, cycle: int) -> int:
    """Return ``steps``, made up to a multiple of ``cycle``."""
    return math.ceil(steps / cycle) * cycle
