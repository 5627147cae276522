"""What came out of a study: a table, a figure and a verdict for each variant."""

import os
import re
from dataclasses import asdict, dataclass
from typing import Any

from .result import RunResult, plain
from .statistics import Comparison, compare, verdict
from .study.files import temporary, write_text
from .study.folder import Study
from .summary import draw, markdown

__all__ = ["Outcome", "outcomes", "write_outcomes"]


@dataclass(frozen=True)
class Outcome:
    """The comparison of the methods in one variant; ``rows`` is empty where no run of the baseline is finished."""

    variant: str
    baseline: str
    rows: list[Comparison]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; what cannot be told is null."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def outcomes(
    results: list[RunResult], baseline: str, test: str = "t", difference: float | None = None
) -> list[Outcome]:
    """Compare the methods with ``baseline``, variant by variant; Holm's correction is over one variant's methods.

    Args:
        results: finished runs.
        baseline: what the others are compared with.
        test: a key of ``TESTS``.
        difference: points whose number of seeds the verdict is to tell.
    """
    found = []
    for name in dict.fromkeys(result.variant for result in results):
        mine = [result for result in results if result.variant == name]
        if any(result.method == baseline for result in mine):
            rows = compare(mine, baseline, test)
            found.append(Outcome(name, baseline, rows, verdict(rows, baseline, difference)))
        else:
            sentence = f"No run of {baseline} is finished, so there is nothing to compare with."
            found.append(Outcome(name, baseline, [], sentence))
    return found


def write_outcomes(study: Study, baseline: str, test: str = "t", difference: float | None = None) -> list[Outcome]:
    """Write results.csv, results.jsonl, table.md and the figures into the study's folder."""
    results = study.write_results()
    found = outcomes(results, baseline, test, difference)
    text = []
    for outcome in found:
        heading = f"## {outcome.variant}\n\n" if outcome.variant else ""
        table = markdown(outcome.rows, baseline) + "\n" if outcome.rows else ""
        text.append(f"{heading}{table}{outcome.verdict}\n")
        if outcome.rows:
            mine = [result for result in results if result.variant == outcome.variant]
            path = study.folder / f"figure{_suffix(outcome.variant)}.png"
            fresh = temporary(path)
            draw(mine, baseline, fresh, _title(study, outcome.variant), test)
            os.replace(fresh, path)
    write_text(study.folder / "table.md", "\n".join(text))
    return found


def _suffix(variant: str) -> str:
    return "-" + re.sub(r"[^\w.-]+", "-", variant) if variant else ""


def _title(study: Study, variant: str) -> str:
    recipe = study.recipe_of(next(run for run in study.runs if run.variant == variant))
    noise = f", {100 * recipe.data.label_noise:g} % of the training labels wrong" if recipe.data.label_noise else ""
    return f"{recipe.data.name}, {recipe.model.name}{noise}, rho = {recipe.sharpness.rho:g}, {recipe.seeds} seeds"
