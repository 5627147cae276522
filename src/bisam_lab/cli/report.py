"""The command ``bisam report``."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import RecipeError
from .options import Export, Test
from .places import brought, disk, is_url
from .signals import leaving

if TYPE_CHECKING:
    from ..report import ReportData
    from ..study.remote import Remote

__all__ = ["report"]

#: Seconds between two looks at the folders, at least, and as a multiple of the time that a look takes.
PAUSE, SHARE = 5.0, 20.0


def report(
    places: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER...", help="Of studies, tunings and runs; or URLs of the first and last."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=disk, metavar="PATH", help="The page to write; report.html in the folder, or beside several ones."
        ),
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
    [dim]bisam report s3://bucket/study[/dim]
    """
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
        _export(places)
        return
    if as_json:
        print(json.dumps(_collected(places, baseline, test)[0].to_dict()))
        return
    if out is not None and out.is_dir():
        raise RecipeError(f"--out {out} is a folder: name a file, such as {out / 'report.html'}")
    if out is None and len(places) > 1 and (far := next(filter(is_url, places), None)):
        raise RecipeError(f"{far} is one of several: name the page with --out, such as --out report.html")
    with leaving():
        began = time.monotonic()
        found, remote = _collected(places, baseline, test)
        path = _place(out, found)
        there = remote if out is None else None
        _write(found, path, there)
        shown = str(path) if there is None else f"{there.url}/{path.name}"
        Console(soft_wrap=True).print(shown, highlight=False, markup=False)
        while watch and not found.finished:
            time.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))
            began = time.monotonic()
            found, _ = _collected(places, baseline, test)
            _write(found, path, there)


def _collected(places: Sequence[str], baseline: str | None, test: str) -> "tuple[ReportData, Remote | None]":
    """Read folders; return what is there, and where the only one lies in an object storage."""
    from ..report import collect  # here, because scipy takes a second to import and --help must be fast

    here = [brought(place) for place in places]
    found = collect([folder for folder, _ in here], baseline, test)
    urls = {str(folder): remote.url for folder, remote in here if remote is not None}
    studies = [replace(study, folder=urls.get(study.folder, study.folder)) for study in found.studies]
    runs = [
        replace(group, runs=[replace(run, folder=urls.get(run.folder, run.folder)) for run in group.runs])
        for group in found.runs
    ]
    return replace(found, studies=studies, runs=runs), here[0][1] if len(here) == 1 else None


def _check_alone(export: str, others: Mapping[str, bool]) -> None:
    """Refuse options that an export does not heed."""
    if given := [name for name, there in others.items() if there]:
        raise RecipeError(
            f"{' and '.join(given)} has no effect with --export {export}, which writes a file into each folder: leave "
            "it out"
        )


def _export(places: Sequence[str]) -> None:
    from ..report.benchopt import export_benchopt

    paths, notes = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    for folder, remote in map(brought, places):
        path = export_benchopt(folder, lambda text: notes.print(text, highlight=False, markup=False))
        if remote is not None:
            remote.take(path.name)
        paths.print(str(path) if remote is None else f"{remote.url}/{path.name}", highlight=False, markup=False)


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


def _write(found: "ReportData", path: Path, remote: "Remote | None") -> None:
    from ..report import write_page

    try:
        write_page(found, path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be written ({error.strerror}): name another file with --out") from None
    if remote is not None:
        remote.take(path.name)
