"""The command ``bisam report``."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import RecipeError
from .options import Export, Test
from .signals import leaving

if TYPE_CHECKING:
    from ..report import ReportData

__all__ = ["report"]

#: Seconds between two looks at the folders, at least, and as a multiple of the time that a look takes.
PAUSE, SHARE = 5.0, 20.0


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Of studies, tunings and runs.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; report.html in the folder, or beside several ones.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method to compare with; the first of each recipe by default.")
    ] = None,
    test: Test = "t",
    watch: Annotated[bool, typer.Option("--watch", help="Write the page again and again until all is done.")] = False,
    export: Export = None,
    as_json: Annotated[bool, typer.Option("--json", help="The page's data as one JSON object, and no page.")] = False,
) -> None:
    """Make one HTML page of what bisam compare, tune or train left in a folder; of several folders one page.

    A study has its verdict, differences and learning curves; a tuning its history, importances, parallel coordinates
    and best trial; a run its curves. The page needs no other file and no network. It needs a script only to filter and
    to show the values under the pointer. While something is missing, an open page reads its file again by itself.

    [dim]bisam report studies/digits[/dim]
    [dim]bisam report studies/* --out all.html --baseline sgd[/dim]
    [dim]bisam report tuning/digits-bisam-tanh --watch[/dim]
    [dim]bisam report studies/digits --export benchopt[/dim]
    """
    from ..report import collect  # here, because scipy takes a second to import and --help must be fast

    if baseline is not None and "@" in baseline:
        from ..registry.methods import canonical  # here: a baseline without numbers does not wait for torch

        baseline = canonical(baseline)
    if export is not None:
        _check_alone(
            export,
            {
                "--json": as_json,
                "--out": out is not None,
                "--watch": watch,
                "--baseline": bool(baseline),
                "--test": test != "t",
            },
        )
        _export(folders)
        return
    if as_json:
        print(json.dumps(collect(folders, baseline, test).to_dict()))
        return
    if out is not None and out.is_dir():
        raise RecipeError(f"--out {out} is a folder: name a file, such as {out / 'report.html'}")
    with leaving():
        began = time.monotonic()
        found = collect(folders, baseline, test)
        path = _place(out, found)
        _write(found, path)
        Console(soft_wrap=True).print(f"{path}", highlight=False, markup=False)
        while watch and not found.finished:
            time.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))
            began = time.monotonic()
            found = collect(folders, baseline, test)
            _write(found, path)


def _check_alone(export: str, others: Mapping[str, bool]) -> None:
    """Refuse options that an export does not heed."""
    if given := [name for name, there in others.items() if there]:
        raise RecipeError(
            f"{' and '.join(given)} has no effect with --export {export}, which writes a file into each folder: leave "
            "it out"
        )


def _export(folders: Sequence[Path]) -> None:
    from ..report.benchopt import export_benchopt

    paths, notes = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    for folder in folders:
        path = export_benchopt(folder, lambda text: notes.print(text, highlight=False, markup=False))
        paths.print(f"{path}", highlight=False, markup=False)


def _place(out: Path | None, found: "ReportData") -> Path:
    """Return where the page belongs. It replaces no file that is another's.

    Raises:
        RecipeError: a file of another kind is there, or, where nobody named it, a page of other folders.
    """
    from ..report.page import mark_of, written_for

    path = out or _usual(found.folders)
    if not path.exists():
        return path
    try:
        owner = written_for(path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): name another file with --out") from None
    if owner is None:
        raise RecipeError(f"{path} is there and is no page of bisam report: name another file with --out")
    if out is None and owner != mark_of(found.folders):
        raise RecipeError(f"{path} is the page of other folders: name this one with --out, such as --out mine.html")
    return path


def _usual(folders: list[str]) -> Path:
    """Return report.html in the folder, or in the one that holds all of them; relative where that is shorter."""
    path = Path(os.path.commonpath(folders)) / "report.html"
    nearer = os.path.relpath(path)
    return path if nearer.startswith("..") else Path(nearer)


def _write(found: "ReportData", path: Path) -> None:
    from ..report import write_page

    try:
        write_page(found, path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be written ({error.strerror}): name another file with --out") from None
