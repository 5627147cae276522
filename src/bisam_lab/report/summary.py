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
from ..statistics.registered import Decided, decision_words
from ..statistics.signatures import in_words
from ..study.files import temporary, write_text
from ..study.folder import Study
from .block import make_block
from .png import draw_comparison
from .survives import survives_markdown
from .words import NONE, p_value, stopping_words

__all__ = ["cells", "columns", "lines", "markdown", "shifts", "table", "write_summary"]


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
        *_of_margin(rows),
        "steps/s",
    )


def _of_margin(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """Return the names of the columns of the test of equivalence; none without a margin."""
    margins = [row.equivalence.margin for row in rows if row.equivalence is not None]
    return (f"p (within {margins[0]:g})", "conclusion") if margins else ()


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
        view.add_column(column, justify="left" if column in ("method", "conclusion") else "right", no_wrap=True)
    for row, line in zip(rows, lines(rows, baseline), strict=True):
        view.add_row(*line, style="red" if row.collapsed or row.diverged else None)
    return view


def markdown(rows: Sequence[Comparison], baseline: str) -> str:
    """Return the table in Markdown."""
    head = columns(rows)
    under = ["---" if column in ("method", "conclusion") else "---:" for column in head]
    return "".join("| " + " | ".join(line) + " |\n" for line in (head, under, *lines(rows, baseline)))


def lines(rows: Sequence[Comparison], baseline: str) -> list[list[str]]:
    """Return the table's rows, a text for each of its columns."""
    margin = bool(_of_margin(rows))
    return [cells(row, baseline, margin=margin) for row in rows]


def cells(row: Comparison, baseline: str, *, margin: bool = False) -> list[str]:
    """Return a row of the table, a text for each of its columns; with those of the margin if the table has one."""
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
        *(_equivalence(row, alone) if margin else ()),
        f"{row.speed:.2f}x" if not math.isnan(row.speed) else NONE,
    ]


def _equivalence(row: Comparison, alone: bool) -> tuple[str, str]:
    if alone or row.equivalence is None:
        return "" if alone else NONE, ""
    return p_value(row.equivalence.p_adjusted), row.conclusion


def _at_equal_steps(row: Comparison) -> str:
    failed = f" ({row.steps_failed} failed)" if row.steps_failed else ""
    return _score(row.steps_mean, row.steps_std) + failed


def _score(mean: float, std: float) -> str:
    return _number(mean, ".2f") + ("" if math.isnan(std) else f" ± {std:.2f}")


def _number(value: float, form: str) -> str:
    return NONE if math.isnan(value) else format(value, form)


def _interval(row: Comparison) -> str:
    return NONE if math.isnan(row.low) else f"[{row.low:+.2f}, {row.high:+.2f}]"


def write_summary(
    study: Study, results: Sequence[RunResult], found: Sequence[Outcome], stated: Sequence[Decided] = ()
) -> None:
    """Write table.md and the figures into the study's folder.

    Args:
        study: where to write.
        results: its finished runs.
        found: their comparison, one per variant.
        stated: the recipe's hypotheses, decided.
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
    if stated:
        text.append(_hypotheses(stated, study.recipe.stopping))
    text += [f"{line}\n" for line in shifts(study.recipe)]
    write_text(study.folder / "table.md", "\n".join(text))


def _hypotheses(stated: Sequence[Decided], stopping: int | str | None) -> str:
    """Return what was stated before the first run, and what came out, in Markdown."""
    rule = "" if stopping is None else f" Stopping rule: {stopping_words(stopping)}."
    each = "".join(f"- {one.says}\n  {decision_words(one)}\n" for one in stated)
    return f"## Stated before the first run\n\nHolm-adjusted over the hypotheses.{rule}\n\n{each}"


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
