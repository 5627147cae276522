"""Render a report's data into one HTML page, with its style and its script inside."""

import base64
import re
import shlex
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..registry.measures import MEASURES
from ..statistics.signatures import in_words
from ..study.files import write_text
from . import configuration, svg, words
from .charts import block_chart, difference_chart, left_out, look
from .collect import ReportData
from .one_run import RunData
from .panels import panels, run_panels
from .quantities import AXES
from .survives import by_measure, survives_cells, survives_head
from .theme import COLOURS, DARK, FONTS, LIGHT

__all__ = [
    "REFRESH",
    "asset",
    "environment_of_pages",
    "mark_of",
    "palette",
    "render",
    "rounded",
    "write_page",
    "written_for",
]

#: What the page says of a method, by the kind of its finding.
SAID = {
    "better": "better",
    "worse": "worse",
    "open": "no evidence of a difference",
    "silent": "nothing can be said",
    "failed": "every run failed",
}


#: Seconds after which an open page reads its file again, while there is something to come.
REFRESH = 10


def render(report: ReportData) -> str:
    """Return the page as HTML. It needs no other file and no network."""
    environment = environment_of_pages()
    style = partial(_style, report.methods)
    environment.globals |= {
        "style": style,
        "draw": partial(svg.draw_curves, style=style),
        "differences": partial(svg.draw_differences, style=style),
        "differences_caption": lambda block: difference_chart(block).caption,
        "block_chart": block_chart,
        "left_out": left_out,
        "panels": panels,
        "run_panels": run_panels,
        "axes": AXES,
        "said": SAID,
        "facts": configuration.facts,
        "lines": configuration.lines,
        "recipe_link": _recipe_link,
        "interval": words.interval,
        "in_words": in_words,
        "by_measure": by_measure,
        "survives_cells": survives_cells,
        "survives_head": survives_head,
        "measures": MEASURES,
        "command_of": _command_of,
        **(_of_tunings() if report.tunings else {}),
    }
    blocks = [block for study in report.studies for block in study.blocks]
    runs = [run for block in blocks for run in (*block.runs, *block.equal_steps)]
    runs += [run.result for group in report.runs for run in group.runs]
    return environment.get_template("template.html").render(
        report=report,
        folders=mark_of(report.folders),
        refresh=REFRESH,
        seeds=sorted({run.seed for run in runs}),
        several=len(blocks) > 1,
        shown_methods=list(dict.fromkeys(method for block in blocks for method in block.methods)),
        data=rounded(report.to_dict()),
        palette=palette(),
        css=asset("style.css"),
        script=asset("script.js"),
    )


def environment_of_pages() -> Environment:
    """Return what renders this package's templates, with the filters that tell numbers and names."""
    environment = Environment(
        loader=PackageLoader("bisam_lab.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {name: getattr(words, name) for name in words.__all__ if name != "NONE"}
    return environment


def _of_tunings() -> dict[str, Any]:
    from ..tuning.result import ENOUGH
    from . import svg_tuning  # here, because Optuna takes a second to import

    return {
        "history": svg_tuning.draw_history,
        "importances": svg_tuning.draw_importances,
        "parallel": svg_tuning.draw_parallel,
        "slice": svg_tuning.draw_slice,
        "legend": svg_tuning.draw_legend,
        "enough": ENOUGH,
    }


def mark_of(folders: Sequence[str]) -> str:
    """Return what the page of these folders is known by, so that it replaces no other one unasked."""
    return sha256("\n".join(sorted(folders)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def written_for(path: Path) -> str | None:
    """Return whose page a file is, as :func:`mark_of`; None if it is no page of bisam."""
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(2000)
    found = re.search(r'<meta name="bisam-folders" content="(\w+)">', start)
    return found.group(1) if found else "" if 'name="generator" content="bisam' in start else None


def _command_of(run: RunData) -> str:
    """Return the command that trains a run again."""
    words_ = ["bisam", "train", "run.yaml", "--method", run.result.method, "--seed", str(run.result.seed)]
    return shlex.join([*words_, *(["--variant", run.result.variant] if run.result.variant else []), "--out", "again"])


def write_page(report: ReportData, path: Path) -> None:
    """Write the page. A reader who opens ``path`` at that moment sees the old page or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(report))


def _style(methods: list[str], method: str) -> str:
    """Return the CSS classes of a method: its colour and its dashes."""
    colour, dash = look(methods, method)
    return f"m{colour} dash{dash}"


def palette() -> Markup:
    """Return the colours and the fonts as CSS variables, for light and for dark screens."""
    light, dark = (
        " ".join(
            [f"--m{i}: {pair[scheme]};" for i, pair in enumerate(COLOURS)]
            + [f"--{name}: {colour};" for name, colour in others.items()]
        )
        for scheme, others in enumerate((LIGHT, DARK))
    )
    fonts = ", ".join(f'"{font}"' for font in FONTS)
    light += f" --fonts: {fonts}, sans-serif;"
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}")


def asset(name: str) -> Markup:
    """Return a file of this package, to stand in the page as it is."""
    return Markup((resources.files("bisam_lab.report") / name).read_text(encoding="utf-8"))


def _recipe_link(recipe: dict[str, Any]) -> str:
    return "data:text/yaml;base64," + base64.b64encode(configuration.text(recipe).encode()).decode()


def rounded(value: Any) -> Any:
    """Round numbers to six digits; the page shows no more."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
