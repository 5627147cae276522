"""What survives, method by method: the tables of docs/lab/survives.md, from ``results/survives.json``.

python docs/survives_tables.py NAME=STUDY_FOLDER ...   # keep the runs of studies in results/survives.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bisam_lab.registry.measures import MEASURES
from bisam_lab.report.page import rounded
from bisam_lab.report.survives import survives_cells
from bisam_lab.run.result import RunResult
from bisam_lab.statistics import compare
from bisam_lab.statistics.measures import Measured, measured
from bisam_lab.study.files import read_results

__all__ = ["tables"]

RESULTS = Path(__file__).resolve().parent.parent / "results" / "survives.json"
#: What a run keeps in the file.
_KEPT = ("method", "seed", "status", "test_score", "validation_score", "selected_epoch", "measures")


def tables() -> dict[str, str]:
    """Return the tables, by name: of each study all quantities, and where methods differ from SAM."""
    stored = json.loads(RESULTS.read_text())
    found = {}
    for name, study in stored["studies"].items():
        runs = [_run(values) for values in study["runs"]]
        found[f"survives-{name}"] = _whole(runs)
        found[f"survives-{name}-differences"] = _verdicts(runs)
    return found


def _run(values: dict[str, Any]) -> RunResult:
    return RunResult.from_dict({"history": [], "steps_per_second": 1.0, "seconds": 1.0, **values})


def _score(runs: Sequence[RunResult], baseline: str) -> Measured:
    return Measured("score", "test", "test accuracy, %", 2, compare(runs, baseline))


def _whole(runs: Sequence[RunResult]) -> str:
    """Return each quantity's mean and spread, a column a method, and what SAM changes beside SGD."""
    methods = list(dict.fromkeys(run.method for run in runs))
    rows = []
    for one in (_score(runs, "sgd"), *measured(runs, "sgd")):
        cells = {row[1]: row for row in survives_cells(one, "sgd")}
        rows.append([_called(one), *(cells[method][2] for method in methods), " ".join(cells["sam"][4:6])])
    n = len({run.seed for run in runs})
    return f"Mean ± standard deviation, n = {n} seeds.\n\n{_markdown(['', *methods, 'sam minus sgd'], rows)}"


def _called(one: Measured) -> str:
    return one.label if one.measure == "score" else f"{one.measure}: {one.label}"


def _verdicts(runs: Sequence[RunResult]) -> str:
    """Return where a method differs from SAM at the 5 % level, after Holm's correction over the methods."""
    rows = [
        [row.method, _called(one), *cells[4:]]
        for one in (_score(runs, "sam"), *measured(runs, "sam"))
        for row, cells in zip(one.rows, survives_cells(one, "sam"), strict=True)
        if row.method not in ("sam", "sgd") and row.p_adjusted < 0.05
    ]
    head = ["method", "what", "minus sam", "95 % interval", "p (Holm)"]
    return _markdown(head, rows) if rows else "Nowhere."


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _keep(given: Sequence[str]) -> None:
    """Write the file from folders of studies."""
    studies = json.loads(RESULTS.read_text())["studies"] if RESULTS.is_file() else {}
    for word in given:
        name, _, folder = word.partition("=")
        results = read_results(Path(folder))[0]
        recipe = (Path(folder) / "recipe.yaml").read_text()
        order = {method: place for place, method in enumerate(dict.fromkeys(_methods(recipe)))}
        results.sort(key=lambda run: (order[run.method], run.seed))
        runs = [{key: value for key, value in run.to_dict().items() if key in _KEPT} for run in results]
        studies[name] = {"recipe": recipe, "environment": _machine(results[0]), "runs": rounded(runs)}
    RESULTS.write_text(json.dumps({"measures": list(MEASURES), "studies": studies}, indent=1) + "\n")


def _machine(run: RunResult) -> dict[str, Any]:
    return {key: run.environment[key] for key in ("processor", "cores", "threads", "python", "packages")}


def _methods(recipe: str) -> list[str]:
    from bisam_lab.plain_yaml import parse_yaml

    return [str(method) for method in parse_yaml(recipe, "recipe.yaml")["methods"]]


if __name__ == "__main__":
    _keep(sys.argv[1:])
