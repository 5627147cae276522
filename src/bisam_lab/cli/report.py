"""The command ``bisam report``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import RecipeError
from .options import Test

__all__ = ["report"]


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of studies.")],
    out: Annotated[Path, typer.Option(help="The page to write; an older one is replaced.")] = Path("report.html"),
    baseline: Annotated[
        str | None, typer.Option(help="Method to compare with; the first of each recipe by default.")
    ] = None,
    test: Test = "t",
    as_json: Annotated[bool, typer.Option("--json", help="The page's data as one JSON object, and no page.")] = False,
) -> None:
    """Make one HTML page of one or several studies.

    It shows tables, differences, learning curves, configuration, hardware and versions. The page needs no other file
    and no network. It needs a script only to filter and to show the values under the pointer.

    [dim]bisam report studies/digits[/dim]
    [dim]bisam report studies/* --out all.html --baseline sgd[/dim]
    """
    from ..report import collect, write_page  # here, because scipy takes a second to import and --help must be fast

    if not as_json and out.is_dir():
        raise RecipeError(f"--out {out} is a folder: name a file, such as {out / 'report.html'}")
    if baseline is not None and "@" in baseline:
        from ..registry.methods import canonical  # here: a baseline without numbers does not wait for torch

        baseline = canonical(baseline)
    found = collect(folders, baseline, test)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    write_page(found, out)
    Console(soft_wrap=True).print(f"{out}", highlight=False, markup=False)
