"""What is compared: the runs of one variant of a study, with everything that a page or a figure shows of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..run.result import RunResult
from ..statistics import TESTS, Comparison
from ..statistics.by_variant import Outcome
from ..statistics.findings import Findings, findings
from ..statistics.measures import Measured
from ..statistics.signatures import Shown

__all__ = ["Block", "Curve", "Difference", "make_block"]


@dataclass(frozen=True)
class Curve:
    """A method's learning curve: mean and sample standard deviation over the seeds that reached the epoch."""

    method: str
    epoch: list[int]
    validation_score: list[float]
    validation_score_std: list[float]
    train_loss: list[float]
    train_loss_std: list[float]


@dataclass(frozen=True)
class Difference:
    """Test score of a method minus the baseline's at one seed, in points."""

    method: str
    seed: int
    difference: float


@dataclass(frozen=True)
class Block:
    """The runs of one variant, compared; a study without variants has one block.

    Attributes:
        variant: its name; empty in a study without variants.
        settings: what the variant changes in the recipe.
        metric: of the scores.
        baseline: the method that the others are compared with.
        interval: name of the confidence interval.
        methods: those that have finished runs, in the recipe's order.
        verdict: the comparison in words.
        findings: the same, method by method; None if there is nothing to compare with.
        comparison: one row per method; empty if the baseline has no finished run.
        differences: to the baseline, one per method and seed.
        curves: one per method.
        runs: that are compared, by method, then by seed.
        budget: unit of the budget that every method spent; None: the methods are compared at equal steps.
        cost: what the methods have spent, in words.
        equal_steps: runs with the recipe's epochs that are not compared, because others spend the budget.
        signatures: the failure signatures that methods show.
        measures: what was measured beside the score, compared.
    """

    variant: str
    settings: dict[str, Any]
    metric: str
    baseline: str
    interval: str
    methods: list[str]
    verdict: str
    findings: Findings | None
    comparison: list[Comparison]
    differences: list[Difference]
    curves: list[Curve]
    runs: list[RunResult]
    budget: str | None = None
    cost: str = ""
    equal_steps: list[RunResult] = field(default_factory=list)
    signatures: list[Shown] = field(default_factory=list)
    measures: list[Measured] = field(default_factory=list)


def make_block(
    outcome: Outcome,
    runs: Sequence[RunResult],
    methods: Sequence[str],
    test: str,
    settings: dict[str, Any] | None = None,
    equal_steps: Sequence[RunResult] = (),
) -> Block:
    """Collect what is shown of one variant.

    Args:
        outcome: the comparison of the runs.
        runs: the finished runs of the variant that are compared.
        methods: all methods of the study, in the recipe's order.
        test: the paired test of the comparison, a key of ``TESTS``.
        settings: what the variant changes in the recipe.
        equal_steps: other runs of the variant, with the recipe's epochs.
    """
    place = {method: i for i, method in enumerate(methods)}
    ordered = sorted(runs, key=lambda run: (place[run.method], run.seed))
    beside = sorted(equal_steps, key=lambda run: (place[run.method], run.seed))
    present = list(dict.fromkeys(run.method for run in ordered))
    finished = {run.method for run in (*ordered, *beside)}
    return Block(
        variant=outcome.variant,
        settings=settings or {},
        metric=ordered[0].metric if ordered else "accuracy",
        baseline=outcome.baseline,
        interval=TESTS[test].interval(outcome.rows[0].level if outcome.rows else 0.95),
        methods=[method for method in methods if method in finished],
        verdict=outcome.verdict,
        findings=findings(outcome.rows, outcome.baseline) if outcome.rows else None,
        comparison=outcome.rows,
        differences=_differences(ordered, outcome.baseline),
        curves=[_curve(method, [run for run in ordered if run.method == method]) for method in present],
        runs=ordered,
        budget=outcome.budget,
        cost=outcome.cost,
        equal_steps=beside,
        signatures=outcome.signatures,
        measures=outcome.measures,
    )


def _differences(runs: Sequence[RunResult], baseline: str) -> list[Difference]:
    base = {run.seed: run.test_score for run in runs if run.method == baseline}
    return [
        Difference(run.method, run.seed, 100 * (run.test_score - base[run.seed]))
        for run in runs
        if run.method != baseline and run.seed in base
    ]


def _curve(method: str, runs: Sequence[RunResult]) -> Curve:
    epochs = sorted({epoch.epoch for run in runs for epoch in run.history})
    return Curve(method, epochs, *_moments(runs, epochs, "validation_score"), *_moments(runs, epochs, "train_loss"))


def _moments(
    runs: Sequence[RunResult], epochs: Sequence[int], quantity: Literal["validation_score", "train_loss"]
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation at each epoch, over the runs that have a finite value there."""
    seen: dict[int, list[float]] = {epoch: [] for epoch in epochs}
    for run in runs:
        for epoch in run.history:
            value = getattr(epoch, quantity)
            if value is not None and math.isfinite(value):  # the last loss of a diverged run is NaN
                seen[epoch.epoch].append(value)
    return (
        [float(np.mean(values)) if values else math.nan for values in seen.values()],
        [float(np.std(values, ddof=1)) if len(values) > 1 else math.nan for values in seen.values()],
    )
