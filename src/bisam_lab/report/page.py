"""Render a report's data into one HTML page, with its style and its script inside."""

import base64
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..study.files import write_text
from . import configuration, svg, words
from .charts import COLOURS, difference_chart, look, place_of_loss
from .collect import ReportData

__all__ = ["render", "write_page"]


def render(report: ReportData) -> str:
    """Return the page as HTML. It needs no other file and no network."""
    environment = Environment(
        loader=PackageLoader("bisam_lab.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = partial(_style, report.methods)
    environment.filters |= {name: getattr(words, name) for name in words.__all__ if name != "NONE"}
    environment.globals |= {
        "style": style,
        "interval": words.interval,
        "curves": partial(svg.draw_curves, style=style),
        "differences": partial(svg.draw_differences, style=style),
        "differences_caption": lambda block: difference_chart(block).caption,
        "place_of_loss": place_of_loss,
        "facts": lambda study: configuration.facts(study.recipe),
        "lines": configuration.lines,
        "recipe_link": _recipe_link,
    }
    seeds = sorted(
        {run.seed for study in report.studies for block in study.blocks for run in (*block.runs, *block.equal_steps)}
    )
    return environment.get_template("template.html").render(
        report=report,
        seeds=seeds,
        several=sum(len(study.blocks) for study in report.studies) > 1,
        data=_rounded(report.to_dict()),
        palette=_palette(),
        css=_asset("style.css"),
        script=_asset("script.js"),
    )


def write_page(report: ReportData, path: Path) -> None:
    """Write the page. A reader who opens ``path`` at that moment sees the old page or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(report))


def _style(methods: list[str], method: str) -> str:
    """Return the CSS classes of a method: its colour and its dashes."""
    colour, dash = look(methods, method)
    return f"m{colour} dash{dash}"


def _palette() -> Markup:
    """Return the methods' colours as CSS variables, for light and for dark screens."""
    light, dark = (" ".join(f"--m{i}: {pair[scheme]};" for i, pair in enumerate(COLOURS)) for scheme in (0, 1))
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}")


def _asset(name: str) -> Markup:
    return Markup((resources.files("bisam_lab.report") / name).read_text(encoding="utf-8"))  # a file of this package


def _recipe_link(recipe: dict[str, Any]) -> str:
    return "data:text/yaml;base64," + base64.b64encode(configuration.text(recipe).encode()).decode()


def _rounded(value: Any) -> Any:
    """Round numbers to six digits; the page shows no more."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
