"""``bisam bench --grid``: what it prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..errors import RecipeError

__all__ = ["run_grid"]

_GIB = 2**30


def run_grid(
    networks: str | None, methods: str | None, rounds: int, out: Path, memory: float | None, as_json: bool
) -> None:
    """Measure what is missing in ``out``, and show all of it.

    Raises:
        RecipeError: an unknown network or method, or a file that is no result of a grid.
    """
    from ..bench.grid import METHODS, grid
    from ..bench.grid.networks import NETWORKS

    shown = [name for name in NETWORKS if name != "tiny"]
    chosen = METHODS if methods in (None, "all") else tuple((methods or "").split(","))
    _check(chosen)
    told = Console(stderr=True, soft_wrap=True)
    result = grid(
        out,
        networks=networks.split(",") if networks else shown,
        methods=chosen,
        rounds=rounds,
        memory=memory,
        tell=lambda line: told.print(line, highlight=False, markup=False),
    )
    if as_json:
        print(json.dumps(result))
        return
    _show(result)
    Console(soft_wrap=True).print(f"All numbers: {out}. The same command goes on where it stopped.", highlight=False)


def _check(methods: tuple[str, ...]) -> None:
    from ..registry.methods import Method

    for name in methods:
        try:
            if Method(name, {}).plain:
                raise ValueError(f"{name} is the plain optimizer, which each method is measured beside: leave it out")
        except ValueError as error:
            raise RecipeError(f"--methods: {error}") from None


def _show(result: Mapping[str, Any]) -> None:
    table = Table(title="Cost of a step, as a multiple of plain AdamW's")
    for column in ("network", "trained", "method"):
        table.add_column(column)
    for column in ("step time", "peak memory", "by its choices", "usual batch, GiB"):
        table.add_column(column, justify="right")
    for row in result["cells"].values():
        table.add_row(*_cells(row))
    console = Console()
    whole = Measurement.get(console, console.options.update(max_width=200), table).maximum
    Console(width=max(console.width, whole)).print(table, crop=False)  # rather a long line than a column lost


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (row["network"], row["training"], row["method"])
    if "error" in row:
        return (*names, "failed", "", "", "")
    paper, usual = row["paper"], row["usual"]
    planned = f"x {paper['method'] / paper['plain']:.2f}"
    beyond = f"{usual['plain'] / _GIB:.1f} -> {usual['method'] / _GIB:.1f}"
    if "refused" in row:
        return (*names, "does not fit", "", planned, beyond)
    low, high = min(row["ratios"]), max(row["ratios"])
    return (*names, rf"x {low:.2f} to {high:.2f}", f"x {row['memory']:.2f}", planned, beyond)
