"""What survives, as tables: for a terminal, in Markdown, and as texts for the page."""

import math
from collections.abc import Sequence

from rich.table import Table

from ..registry.measures import MEASURES
from ..statistics import TESTS, Comparison
from ..statistics.by_variant import Outcome
from ..statistics.measures import Measured
from .words import NONE, p_value

__all__ = ["by_measure", "survives_cells", "survives_head", "survives_markdown", "survives_tables"]


def by_measure(each: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the quantities of each measure."""
    found: dict[str, list[Measured]] = {}
    for one in each:
        found.setdefault(one.measure, []).append(one)
    return found


def survives_head(rows: Sequence[Comparison]) -> list[str]:
    """Return the names of a table's columns."""
    return ["quantity", "method", "mean", "n", "difference", TESTS[rows[0].test].interval(rows[0].level), "p (Holm)"]


def survives_cells(one: Measured, baseline: str) -> list[list[str]]:
    """Return a row of texts for each method; the first one names the quantity."""
    form = f".{one.digits}f"
    found = []
    for place, row in enumerate(one.rows):
        spread = "" if math.isnan(row.std) else f" ± {row.std:{form}}"
        mean = NONE if math.isnan(row.mean) else f"{row.mean:{form}}{spread}"
        cells = [one.label if place == 0 else "", row.method, mean, str(row.n)]
        if row.method == baseline:
            found.append([*cells, "baseline", "", ""])
            continue
        difference = NONE if math.isnan(row.difference) else f"{row.difference:+{form}}"
        interval = NONE if math.isnan(row.low) else f"[{row.low:+{form}}, {row.high:+{form}}]"
        found.append([*cells, difference, interval, p_value(row.p_adjusted)])
    return found


def survives_markdown(outcome: Outcome) -> str:
    """Return a section for each measure, in Markdown; nothing where nothing was measured."""
    parts = []
    for name, each in by_measure(outcome.measures).items():
        head = survives_head(each[0].rows)
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        lines = [head, rule, *(line for one in each for line in survives_cells(one, outcome.baseline))]
        table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
        parts.append(f"\n### {name}\n\n{_sentence(name)}\n\n{table}")
    return "".join(parts)


def survives_tables(outcome: Outcome) -> list[Table]:
    """Return a table for each measure, for a terminal."""
    views = []
    for name, each in by_measure(outcome.measures).items():
        view = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, title_justify="left", title=f"{name}, test set")
        for place, column in enumerate(survives_head(each[0].rows)):
            view.add_column(column, justify="left" if place < 2 else "right", no_wrap=True)
        for one in each:
            for line in survives_cells(one, outcome.baseline):
                view.add_row(*line)
        views.append(view)
    return views


def _sentence(name: str) -> str:
    what = MEASURES[name].what
    return f"{what[0].upper()}{what[1:]}. Measured on the test set after the run; it has selected nothing."
