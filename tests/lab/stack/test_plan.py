"""How the runs of a study are dealt into stacks."""

import pytest

from bisam_lab.recipe import load
from bisam_lab.run.result import Run
from bisam_lab.stack.plan import deal, stack_size

RECIPE = load("digits", [])
DEMO = [Run("", seed, method) for seed in range(10) for method in ("sgd", "sam", "bisam-tanh", "bisam-log")]


@pytest.mark.parametrize(
    ("runs", "jobs", "largest", "size"),
    [(40, 2, 10, 10), (40, 2, 20, 20), (21, 2, 10, 6), (8, 2, 10, 4), (3, 2, 10, 2), (2, 2, 10, 1), (18, 1, 32, 18)],
)
def test_as_few_stacks_as_keep_all_jobs_busy(runs, jobs, largest, size):
    assert stack_size(runs, jobs, largest) == size
    stacks = deal(DEMO[:runs], RECIPE, jobs, largest)
    assert max(map(len, stacks)) == size
    assert min(map(len, stacks)) >= size - 1
    assert len(stacks) % jobs == 0 or len(stacks) == runs
    assert sorted(run for stack in stacks for run in stack) == sorted(DEMO[:runs])


def test_many_stacks_are_each_of_few_methods():
    names = [f"{method}@rho={rho}" for method in ("sam", "looksam", "every") for rho in (0.1, 0.2, 0.4, 0.8)]
    runs = [Run("", seed, method) for seed in range(10) for method in ("sgd", *names)]
    stacks = deal(runs, RECIPE, 2, 10)
    assert sorted(run for stack in stacks for run in stack) == sorted(runs)
    assert {len(stack) for stack in stacks} <= {9, 10}
    assert [run.method for run in stacks[-1]] == ["sgd"] * 9  # the short ones last, when others still run
    assert max(len({run.method for run in stack}) for stack in stacks) == 2


def test_each_stack_has_its_share_of_the_long_runs():
    for stack in deal(DEMO, RECIPE, 2, 10):
        plain = sum(run.method == "sgd" for run in stack)
        assert plain in (2, 3)
