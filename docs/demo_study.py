"""The study of the demo, from ``results/demo.json``: what the gallery shows of it is read by the laboratory itself."""

import io
import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.figure import Figure
from rich.console import Console

from bisam_lab import Study
from bisam_lab.report.png import page_style
from bisam_lab.report.summary import table
from bisam_lab.run.result import RunResult
from bisam_lab.statistics import Comparison, compare

__all__ = ["CURVES", "DIFFERENCES", "RESULTS", "pictures", "shown", "terminal", "unpack"]

RESULTS = Path(__file__).resolve().parent.parent / "results" / "demo.json"
#: The pictures of the gallery, as paths within the site.
CURVES, DIFFERENCES = "images/demo-curves.svg", "images/demo-differences.svg"


def unpack(folder: Path) -> Study:
    """Write the stored study as the folder that ``bisam compare`` writes, and return it."""
    stored = json.loads(RESULTS.read_text())
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(stored["recipe"], sort_keys=False))
    for run in stored["runs"]:
        path = folder / "runs" / run["method"] / f"seed-{run['seed']}"
        path.mkdir(parents=True)
        (path / "result.json").write_text(json.dumps(run))
    return Study(folder)


def pictures(study: Study) -> dict[str, str]:
    """Return the pictures as SVG, by their paths: what ``plot_curves`` and ``plot_differences`` draw."""
    return {
        CURVES: _drawn(lambda axes: study.plot_curves(ax=axes)),
        DIFFERENCES: _drawn(lambda axes: study.plot_differences(ax=axes)),
    }


def _drawn(draw: Callable[[Any], object]) -> str:
    with page_style(), mpl.rc_context({"svg.hashsalt": "bisam"}):
        figure = Figure(figsize=(5.6, 4), layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def terminal() -> str:
    """Return the table as the terminal shows it, as a block of a page."""
    console = Console(file=io.StringIO(), width=96)
    console.print(table(_compared(), "sgd"), crop=False)
    file = console.file
    assert isinstance(file, io.StringIO)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return "```text\n" + "\n".join(lines).rstrip() + "\n```"


def _compared() -> list[Comparison]:
    """Return the rows of the table, in the recipe's order."""
    stored = json.loads(RESULTS.read_text())
    runs = [RunResult.from_dict(run) for run in stored["runs"]]
    return compare(sorted(runs, key=lambda run: stored["recipe"]["methods"].index(run.method)), "sgd")


def shown(study: Study) -> str:
    """Return what a notebook shows of the study, as a block of a page."""
    text = re.sub(r"<code>.*?</code>", f"<code>{escape('studies/demo')}</code>", study._repr_html_(), count=1)
    return f'<div class="notebook">{text}</div>'
