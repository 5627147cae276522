"""At what cost the methods of a table were compared: which runs count, and a sentence that says so."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..budget import Budget, Share
from ..run.result import RunResult
from .comparison import Comparison

__all__ = ["compared", "cost_sentence", "with_equal_steps"]


def compared(results: Sequence[RunResult], variant: str, budget: Budget | None) -> list[RunResult]:
    """Return the runs of a variant that its table compares: those at equal cost, or without a budget at equal steps.

    A method that the recipe's epochs bring closest to the budget has one run a seed, which is both.
    """
    mine = [result for result in results if result.variant == variant]
    share = None if budget is None else budget.shares.get(variant)
    if share is None:
        return [result for result in mine if not result.equal_cost]
    return [r for r in mine if r.method in share.costs and r.equal_cost == share.differs(r.method)]


def with_equal_steps(rows: Sequence[Comparison], results: Sequence[RunResult], budget: Budget) -> list[Comparison]:
    """Return the rows, which are at equal cost, with the scores at equal steps beside them.

    Args:
        rows: of one variant.
        results: all its runs.
        budget: of the study.
    """
    share = budget.shares[results[0].variant]
    return [_beside(row, [r for r in results if r.method == row.method], share, budget.unit) for row in rows]


def _beside(row: Comparison, runs: Sequence[RunResult], share: Share, unit: str) -> Comparison:
    at_steps = [run for run in runs if not run.equal_cost]
    scores = [100 * run.test_score for run in at_steps]
    return replace(
        row,
        budget=unit,
        cost=share.costs[row.method],
        epochs=share.epochs_of(row.method),
        steps_mean=float(np.mean(scores)) if scores else math.nan,
        steps_std=float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
        steps_failed=sum(run.status != "ok" for run in at_steps),
    )


def cost_sentence(rows: Sequence[Comparison], baseline: str) -> str:
    """Say what the methods have spent. Empty if there is nothing beside the baseline."""
    if len(rows) < 2:
        return ""
    if rows[0].budget is None:
        return _at_equal_steps(rows, baseline)
    unit = "passes" if rows[0].budget == "passes" else "seconds of a plain step"
    each = ", ".join(f"{row.method} {row.cost:.3g} ({_epochs(row)})" for row in rows)
    return (
        f"Every method spent the same, to the nearest epoch. A step costs, in {unit}: {each}. The differences are "
        "those at equal cost."
    )


def _epochs(row: Comparison) -> str:
    return "1 epoch" if row.epochs == 1 else f"{row.epochs} epochs"


def _at_equal_steps(rows: Sequence[Comparison], baseline: str) -> str:
    slower = [row for row in rows if row.method != baseline and math.isfinite(row.speed) and row.speed > 0]
    each = ", ".join(f"{row.method} {1 / row.speed:.2f}" for row in slower)
    took = f" A step takes, beside one of {baseline}: {each}." if each else ""
    return f"Compared at equal steps.{took} bisam compare --budget passes (or seconds) compares at equal cost."
