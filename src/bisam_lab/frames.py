"""Runs and comparisons as frames of pandas."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .errors import RecipeError
from .report.block import Block
from .run.result import RunResult, plain
from .statistics import Comparison

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["COLUMNS", "frame_of", "margin_columns", "measure_frame", "run_name", "run_row"]

#: What a row of :meth:`Study.table` has of a comparison, in this order.
COLUMNS = ("n", "mean", "std", "difference", "low", "high", "p", "p_adjusted", "speed", "collapsed", "diverged")


def run_name(run: RunResult) -> dict[str, Any]:
    """Return which run it is, as columns."""
    return {"variant": run.variant, "method": run.method, "seed": run.seed, "equal_cost": run.equal_cost}


def run_row(run: RunResult) -> dict[str, Any]:
    """Return a run as columns, without its epochs."""
    values = {key: value for key, value in asdict(run).items() if key not in ("history", "environment", "measures")}
    values |= {f"{name}.{key}": number for name, inner in run.measures.items() for key, number in inner.items()}
    machine = {f"environment.{key}": value for key, value in plain(run.environment).items()}
    signs = " ".join(signature.name for signature in run.signatures)
    return run_name(run) | values | {"passes": run.passes, "signatures": signs} | machine


def frame_of(rows: Sequence[Mapping[str, Any]], index: Sequence[str] = ()) -> "DataFrame":
    """Return rows as a frame.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a frame needs pandas: pip install 'bisam[lab]', or pip install pandas") from None
    frame = DataFrame(list(rows))
    return frame.set_index([*index, "method"]) if index else frame


def margin_columns(row: Comparison) -> dict[str, Any]:
    """Return the columns of the test of equivalence. A row without a test has no conclusion, and no numbers."""
    one = row.equivalence
    nan = math.nan
    p, low, high = (nan, nan, nan) if one is None else (one.p_adjusted, one.low, one.high)
    return {"conclusion": row.conclusion, "p_equivalent": p, "low_equivalent": low, "high_equivalent": high}


def measure_frame(blocks: Sequence[Block], measure: str) -> "DataFrame":
    """Return a row a quantity and method of a measure.

    Raises:
        RecipeError: no run has the measure.
    """
    several = len(blocks) > 1
    values = [
        ({"variant": block.variant} if several else {})
        | {"quantity": one.quantity, "method": row.method}
        | {key: getattr(row, key) for key in COLUMNS if key != "speed"}
        for block in blocks
        for one in block.measures
        if one.measure == measure
        for row in one.rows
    ]
    if not values:
        known = dict.fromkeys(one.measure for block in blocks for one in block.measures)
        raise RecipeError(f"measure={measure!r}: the runs have {', '.join(known) or 'none'}: ask with measures=")
    return frame_of(values, [*["variant"] * several, "quantity"])
