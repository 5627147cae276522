"""The table of a comparison, for a terminal and in Markdown, and what is written into the study's folder."""

import math
import os
import re
from collections.abc import Sequence

from rich.table import Table

from ..datasets.registry import shift
from ..recipe import Recipe, variant
from ..registry.metrics import metric_name
from ..run.result import RunResult
from ..statistics import TESTS, Comparison
from ..statistics.by_variant import Outcome
from ..statistics.cost import compared
from ..statistics.signatures import in_words
from ..study.files import temporary, write_text
from ..study.folder import Study
from .block import make_block
from .png import draw_comparison
from .survives import survives_markdown
from .words import NONE, p_value

__all__ = ["cells", "columns", "markdown", "shifts", "table", "write_summary"]


def columns(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """Return the names of the table's columns.

    The interval's column names the test, unless it is Student's t-test. The difference's column says if the estimate is
    a pseudo-median instead of a mean.
    """
    test, level = TESTS[rows[0].test], rows[0].level
    difference = "difference" if test.mean else "pseudo-median difference"
    score = f"test {metric_name(rows[0].metric)} %"
    scores = [score] if rows[0].budget is None else ["epochs", f"{score}, equal steps", "equal cost"]
    return (
        "method",
        *scores,
        "n",
        difference,
        test.interval(level),
        "p (Holm)",
        "steps/s",
    )


def table(rows: Sequence[Comparison], baseline: str) -> Table:
    """Return the table for a terminal. Rows with collapsed or diverged runs are red."""
    view = Table(
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        title_justify="left",
        title=f"Test {metric_name(rows[0].metric)}, paired by seed with {baseline}"
        + ("" if rows[0].budget is None else " at equal cost"),
    )
    for column in columns(rows):
        view.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        view.add_row(*cells(row, baseline), style="red" if row.collapsed or row.diverged else None)
    return view


def markdown(rows: Sequence[Comparison], baseline: str) -> str:
    """Return the table in Markdown."""
    head = columns(rows)
    lines = [head, ["---" if column == "method" else "---:" for column in head]]
    lines += [cells(row, baseline) for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cells(row: Comparison, baseline: str) -> list[str]:
    """Return a row of the table, a text for each of its columns."""
    marks = [f"({count} {word})" for count, word in ((row.collapsed, "collapsed"), (row.diverged, "diverged")) if count]
    alone = row.method == baseline
    return [
        " ".join([row.method, *marks]),
        *([] if row.budget is None else [str(row.epochs), _at_equal_steps(row)]),
        _score(row.mean, row.std),
        str(row.n),
        "baseline" if alone else _number(row.difference, "+.2f"),
        "" if alone else _interval(row),
        "" if alone else p_value(row.p_adjusted),
        f"{row.speed:.2f}x" if not math.isnan(row.speed) else NONE,
    ]


def _at_equal_steps(row: Comparison) -> str:
    failed = f" ({row.steps_failed} failed)" if row.steps_failed else ""
    return _score(row.steps_mean, row.steps_std) + failed


def _score(mean: float, std: float) -> str:
    return _number(mean, ".2f") + ("" if math.isnan(std) else f" ± {std:.2f}")


def _number(value: float, form: str) -> str:
    return NONE if math.isnan(value) else format(value, form)


def _interval(row: Comparison) -> str:
    return NONE if math.isnan(row.low) else f"[{row.low:+.2f}, {row.high:+.2f}]"


def write_summary(study: Study, results: Sequence[RunResult], found: Sequence[Outcome]) -> None:
    """Write table.md and the figures into the study's folder.

    Args:
        study: where to write.
        results: its finished runs.
        found: their comparison, one per variant.
    """
    text = []
    for outcome in found:
        heading = f"## {outcome.variant}\n\n" if outcome.variant else ""
        table = markdown(outcome.rows, outcome.baseline) + "\n" if outcome.rows else ""
        cost = f"\n{outcome.cost}\n" if outcome.cost else ""
        shows = "".join(f"\n- {line}" for line in in_words(outcome.signatures))
        signs = f"\nFailure signatures:\n{shows}\n" if shows else ""
        text.append(f"{heading}{table}{outcome.verdict}\n{cost}{signs}{survives_markdown(outcome)}")
        if outcome.rows:
            _write_figure(study, results, outcome)
    text += [f"{line}\n" for line in shifts(study.recipe)]
    write_text(study.folder / "table.md", "\n".join(text))


def shifts(recipe: Recipe) -> list[str]:
    """Return how the test sets differ in kind from validation, a sentence for each data set of which that is true."""
    names = [variant(recipe, name).data.name for name in recipe.variants or [""]]
    return [text for name in dict.fromkeys(names) if (text := shift(name))]


def _write_figure(study: Study, results: Sequence[RunResult], outcome: Outcome) -> None:
    runs = compared(results, outcome.variant, study.budget)
    path = study.folder / f"figure{_suffix(outcome.variant)}.png"
    fresh = temporary(path)
    block = make_block(outcome, runs, study.recipe.methods, outcome.rows[0].test)
    draw_comparison(block, _title(study, outcome.variant), fresh)
    os.replace(fresh, path)


def _suffix(variant: str) -> str:
    return "-" + re.sub(r"[^\w.-]+", "-", variant) if variant else ""


def _title(study: Study, variant: str) -> str:
    recipe = study.recipe_of(next(run for run in study.runs if run.variant == variant))
    noise = f", {100 * recipe.data.label_noise:g} % of the training labels wrong" if recipe.data.label_noise else ""
    noise += f", long tail {recipe.data.imbalance:g}" if recipe.data.imbalance is not None else ""
    cost = "" if study.budget is None else f", equal cost in {study.budget.unit}"
    return f"{recipe.data.name}, {recipe.model.name}{noise}, rho = {recipe.sharpness.rho:g}, {recipe.seeds} seeds{cost}"
