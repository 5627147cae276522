"""The comparison as a table (terminal and Markdown) and as a picture, and both in the study's folder."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from .registry.metrics import metric_name
from .run.result import RunResult
from .statistics import TESTS, Comparison
from .statistics.by_variant import Outcome
from .study.files import temporary, write_text
from .study.folder import Study

__all__ = ["draw", "markdown", "table", "write_summary"]


def _columns(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """Names of the columns; what is not Student's names its test, what is no mean says so."""
    test, level = TESTS[rows[0].test], rows[0].level
    difference = "difference" if test.mean else "pseudo-median difference"
    return (
        "method",
        f"test {metric_name(rows[0].metric)} %",
        "n",
        difference,
        test.interval(level),
        "p (Holm)",
        "steps/s",
    )


def table(rows: Sequence[Comparison], baseline: str) -> Table:
    """Return the table for a terminal."""
    view = Table(
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        title_justify="left",
        title=f"Test {metric_name(rows[0].metric)}, paired by seed with {baseline}",
    )
    for column in _columns(rows):
        view.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        view.add_row(*_cells(row, baseline), style="red" if row.collapsed or row.diverged else None)
    return view


def markdown(rows: Sequence[Comparison], baseline: str) -> str:
    """Return the table in Markdown."""
    columns = _columns(rows)
    lines = [columns, ["---" if column == "method" else "---:" for column in columns]]
    lines += [_cells(row, baseline) for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(row: Comparison, baseline: str) -> list[str]:
    spread = "" if math.isnan(row.std) else f" ± {row.std:.2f}"
    marks = [f"({count} {word})" for count, word in ((row.collapsed, "collapsed"), (row.diverged, "diverged")) if count]
    alone = row.method == baseline
    return [
        " ".join([row.method, *marks]),
        f"{row.mean:.2f}{spread}",
        str(row.n),
        "baseline" if alone else _number(row.difference, "+.2f"),
        "" if alone else f"[{_number(row.low, '+.2f')}, {_number(row.high, '+.2f')}]",
        "" if alone else _p(row.p_adjusted),
        f"{row.speed:.2f}x" if not math.isnan(row.speed) else "?",
    ]


def _number(value: float, form: str) -> str:
    return "?" if math.isnan(value) else format(value, form)


def _p(p: float) -> str:
    return "?" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def draw(results: Sequence[RunResult], outcome: Outcome, path: Path, title: str) -> None:
    """Draw learning curves with bands, and the paired differences to the baseline with their intervals."""
    first, baseline = outcome.rows[0], outcome.baseline
    metric = metric_name(first.metric)
    rows = {row.method: row for row in outcome.rows}
    by_method: dict[str, list[RunResult]] = {}
    for result in results:
        by_method.setdefault(result.method, []).append(result)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        curves, differences = figure.subplots(1, 2, width_ratios=(3, 2))
        figure.suptitle(title)
        colours = {method: f"C{i}" for i, method in enumerate(by_method)}
        for method, runs in by_method.items():
            _curve(curves, method, runs, colours[method])
        curves.set(xlabel="epoch", ylabel=f"validation {metric} (%)", title="mean over seeds, band: ± 1 std")
        curves.xaxis.set_major_locator(MaxNLocator(integer=True))
        curves.legend(frameon=False, loc="lower right")
        others = [method for method in by_method if method != baseline]
        for height, method in enumerate(reversed(others)):
            _difference(differences, height, rows[method], colours[method])
        differences.axvline(0, color="0.6", linewidth=1)
        differences.set_yticks(range(len(others)), others[::-1])
        differences.set(
            xlabel=f"test {metric} minus that of {baseline} (points)",
            title=f"one dot a seed, bar: {TESTS[first.test].interval(first.level)}",
        )
        differences.set_ylim(-0.6, len(others) - 0.4)
        figure.savefig(path, dpi=150)


def _curve(axes: "mpl.axes.Axes", method: str, runs: Sequence[RunResult], colour: str) -> None:
    epochs = max(len(run.history) for run in runs)
    values = np.full((len(runs), epochs), np.nan)  # a diverged run is shorter
    for i, run in enumerate(runs):
        values[i, : len(run.history)] = [100 * epoch.validation_score for epoch in run.history]
    x, mean = np.arange(1, epochs + 1), np.nanmean(values, 0)
    axes.plot(x, mean, color=colour, label=method)
    if len(runs) > 1:
        n = np.maximum((~np.isnan(values)).sum(0), 2)
        spread = np.nanstd(values, 0) * np.sqrt(n / (n - 1))
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


def _difference(axes: "mpl.axes.Axes", height: int, row: Comparison, colour: str) -> None:
    if not row.pairs:
        return
    axes.plot(row.differences, [height] * row.pairs, "o", color=colour, alpha=0.4, markersize=5)
    axes.plot([row.low, row.high], [height + 0.15] * 2, color=colour, linewidth=2)
    axes.plot(row.difference, height + 0.15, "D", color=colour, markersize=6)


def write_summary(study: Study, results: Sequence[RunResult], found: Sequence[Outcome]) -> None:
    """Write table.md and the figures into the study's folder."""
    text = []
    for outcome in found:
        heading = f"## {outcome.variant}\n\n" if outcome.variant else ""
        table = markdown(outcome.rows, outcome.baseline) + "\n" if outcome.rows else ""
        text.append(f"{heading}{table}{outcome.verdict}\n")
        if outcome.rows:
            mine = [result for result in results if result.variant == outcome.variant]
            path = study.folder / f"figure{_suffix(outcome.variant)}.png"
            fresh = temporary(path)
            draw(mine, outcome, fresh, _title(study, outcome.variant))
            os.replace(fresh, path)
    write_text(study.folder / "table.md", "\n".join(text))


def _suffix(variant: str) -> str:
    return "-" + re.sub(r"[^\w.-]+", "-", variant) if variant else ""


def _title(study: Study, variant: str) -> str:
    recipe = study.recipe_of(next(run for run in study.runs if run.variant == variant))
    noise = f", {100 * recipe.data.label_noise:g} % of the training labels wrong" if recipe.data.label_noise else ""
    return f"{recipe.data.name}, {recipe.model.name}{noise}, rho = {recipe.sharpness.rho:g}, {recipe.seeds} seeds"
