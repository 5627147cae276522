"""Which runs of a study are trained together."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..recipe import Recipe
from ..registry.methods import Method
from ..run.result import Run

__all__ = ["FASTER", "LARGEST", "LARGEST_PASS", "Stacking", "deal", "stack_size"]

#: Whether runs are stacked: where it is faster, wherever it can be, or never.
Stacking: TypeAlias = Literal["auto", "on", "off"]
#: Runs in a stack, at most. On a CPU more of them gain nothing, and another machine that works on the same study would
#: find every run taken. A GPU needs more of them to be busy.
LARGEST = {"cpu": 10, "cuda": 32, "mps": 32}
#: On a CPU, ``auto`` does not try a network whose pass takes more seconds alone: its operations are large enough.
LARGEST_PASS = 0.2
#: From so many stacks a process on, their lengths even out.
MANY = 4
#: ``auto`` stacks where a stacked pass takes less than this share of the time one by one.
FASTER = 0.9


def stack_size(runs: int, jobs: int, largest: int) -> int:
    """Return how many of so many runs go into a stack: as few stacks as keep all jobs equally busy."""
    return math.ceil(runs / _stacks(runs, jobs, largest))


def deal(runs: Sequence[Run], recipe: Recipe, jobs: int, largest: int) -> list[list[Run]]:
    """Deal runs into stacks.

    A few stacks take equally long: each has its share of the methods with one pass, and with two. Of many, each has
    runs of few methods, for these take most of a step together; the methods with two passes come first.
    """
    order = sorted(runs, key=lambda run: (_passes(run.method, recipe), run.method, run.seed))
    stacks = _stacks(len(runs), jobs, largest)
    if stacks < MANY * jobs:
        return [order[first::stacks] for first in range(stacks)]
    bounds = [len(order) * number // stacks for number in range(stacks + 1)]
    return [order[first:end] for first, end in itertools.pairwise(bounds)][::-1]


def _stacks(runs: int, jobs: int, largest: int) -> int:
    rounds = math.ceil(runs / (jobs * largest))
    return max(1, min(jobs * rounds, runs))


def _passes(name: str, recipe: Recipe) -> int:
    """Return about how many passes a step of the method has: 1 of a plain optimizer, 2 of the others."""
    return 1 if Method(name, recipe.sharpness.options).plain else 2
