"""The table of ``bisam compare --watch``: the means of the runs that have ended, before the comparison is whole."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.table import Table

from ..run.result import Run, RunResult

__all__ = ["SoFar"]


class SoFar:
    """Means and numbers of the runs that have ended, by variant and method.

    It has no test and no interval: a study is tested once, at its end. Who looks again and again, and stops where p is
    small, finds differences where there are none.

    Args:
        runs: all that the study has.
        ended: results that are there at the beginning.
    """

    def __init__(self, runs: Sequence[Run], ended: Iterable[RunResult]) -> None:
        self._runs = runs
        self._scores: dict[Run, float] = {}
        self._signs: dict[str, set[str]] = {}
        for result in ended:
            self.add(result)

    def add(self, result: RunResult) -> None:
        """Count another run."""
        self._scores[result.run] = 100 * result.test_score
        self._signs.setdefault(_name(result.run), set()).update(one.name for one in result.signatures)

    def rows(self) -> list[tuple[str, list[float], int]]:
        """Return name, test scores in %, and the number of runs in all, of each variant's methods."""
        found: dict[str, tuple[list[float], int]] = {}
        for run in self._runs:
            name = _name(run)
            scores, total = found.get(name, ([], 0))
            found[name] = ([*scores, *([self._scores[run]] if run in self._scores else [])], total + 1)
        return [(name, scores, total) for name, (scores, total) in found.items()]

    def table(self) -> Table:
        """Return the table for a terminal."""
        view = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, title="So far, untested", title_justify="left")
        view.add_column("method")
        for column in ("test %", "runs"):
            view.add_column(column, justify="right")
        view.add_column("shows" if any(self._signs.values()) else "")
        for name, scores, total in self.rows():
            signs = ", ".join(sorted(self._signs.get(name, ())))
            view.add_row(name, _mean(scores), f"{len(scores)} of {total}", f"[yellow]{signs}[/yellow]")
        return view

    def line(self) -> str:
        """Return the same on one line."""
        return "so far: " + ", ".join(f"{name} {_mean(scores)} ({len(scores)})" for name, scores, _ in self.rows())


def _name(run: Run) -> str:
    return " ".join([*([run.variant] if run.variant else []), run.method]) + " at equal cost" * run.equal_cost


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
    return f"{np.mean(scores):.2f}{spread}"
