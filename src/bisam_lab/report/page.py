"""The page: plain data through a template, with style and script inside, written whole or not at all."""

import base64
import os
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import charts, configuration, words
from .collect import Report, plain

__all__ = ["render", "write"]

_COLOURS, _DASHES = 7, 3


def render(report: Report) -> str:
    """Return the page as HTML that needs no other file and no network."""
    environment = Environment(
        loader=PackageLoader("bisam_lab.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = partial(_style, report.methods)
    environment.filters |= {name: getattr(words, name) for name in words.__all__}
    environment.globals |= {
        "style": style,
        "curves": partial(charts.learning_curves, style=style),
        "differences": partial(charts.differences, style=style),
        "facts": lambda study: configuration.facts(study.recipe),
        "lines": configuration.lines,
        "recipe_link": _recipe_link,
    }
    seeds = sorted({run.seed for study in report.studies for block in study.blocks for run in block.runs})
    return environment.get_template("template.html").render(
        report=report,
        seeds=seeds,
        several=sum(len(study.blocks) for study in report.studies) > 1,
        data=_rounded(plain(report)),
        css=_asset("style.css"),
        script=_asset("script.js"),
    )


def write(report: Report, path: Path) -> None:
    """Write the page; whoever opens ``path`` meanwhile sees the old page or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render(report), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _style(methods: list[str], method: str) -> str:
    """Return the classes of a method's colour and, beyond seven methods, of its dashes."""
    place = methods.index(method)
    return f"m{place % _COLOURS} dash{place // _COLOURS % _DASHES}"


def _asset(name: str) -> Markup:
    return Markup((resources.files("bisam_lab.report") / name).read_text(encoding="utf-8"))  # our own file


def _recipe_link(recipe: dict[str, Any]) -> str:
    return "data:text/yaml;base64," + base64.b64encode(configuration.text(recipe).encode()).decode()


def _rounded(value: Any) -> Any:
    """Shorten numbers to six digits: the page shows no more."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
