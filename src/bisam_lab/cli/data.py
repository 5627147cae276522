"""The command ``bisam data``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..recipe import RecipeError
from ..recipe.known import DATA, nearest

if TYPE_CHECKING:
    from ..data.verify import Checked

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Data sets: list, verify, fetch, prepare.")

Name = Annotated[str, typer.Argument(metavar="SET", help="A set's name, as `bisam data list` has it.")]
Where = Annotated[Path, typer.Option("--data-dir", envvar="BISAM_DATA", help="Where the sets lie.")]
_MARKS = {"ok": "green", "unchecked": "yellow", "missing": "red", "broken": "red"}


@data.command("list")
def list_sets(
    data_dir: Annotated[Path | None, typer.Option(envvar="BISAM_DATA", help="Look here for the sets.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of the table.")] = False,
) -> None:
    """List the data sets, their terms and homes, and which are here.

    [dim]bisam data list --data-dir data[/dim]
    [dim]bisam data list --json[/dim]
    """
    from ..data.catalogue import CATALOGUE, found  # here, for torch takes seconds to import and --help should not

    if as_json:
        rows = [asdict(entry) | {"here": found(entry, data_dir)} for entry in CATALOGUE.values()]
        print(json.dumps([{key: value for key, value in row.items() if key != "inner"} for row in rows]))
        return
    for entry in CATALOGUE.values():
        here = {True: "here", False: "not here", None: ""}[found(entry, data_dir)] if data_dir else ""
        _tell(f"{entry.name:<15}{'; '.join(part for part in (entry.what, entry.examples, here) if part)}")
        _tell(f"{'':<15}{entry.licence}, {entry.where}")


@data.command()
def verify(
    name: Name,
    data_dir: Where = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of the lines.")] = False,
) -> None:
    """Check a set's files against their published checksums; 1 if one is missing or broken.

    Files without a published checksum are checked by size or by reading them, and said to be unchecked.

    [dim]bisam data verify cifar100 --data-dir data[/dim]
    [dim]bisam data verify folder:pictures[/dim]
    """
    from ..data.verify import verify as check

    checked = check(name, data_dir)
    if as_json:
        print(json.dumps([{"path": str(row.path), "state": row.state, "note": row.note} for row in checked]))
    else:
        _rows(checked)
    if any(row.state in ("missing", "broken") for row in checked):
        if name in DATA and name != "imagenet" and not as_json:
            Console(stderr=True, soft_wrap=True).print(_remedy(name, data_dir), highlight=False, markup=False)
        raise typer.Exit(1)


@data.command()
def fetch(name: Name, data_dir: Where = Path("data")) -> None:
    """Get a set from its official home, check it, and unpack it.

    What is here and whole is not got again. GLUE comes through Hugging Face datasets; imagenet wants registration.

    [dim]bisam data fetch pets --data-dir data[/dim]
    [dim]bisam data fetch glue:sst2 --data-dir data[/dim]
    """
    from ..data.official import fetch as get

    _known(name)
    get(name, data_dir, _tell)


@data.command()
def prepare(name: Name, data_dir: Where = Path("data")) -> None:
    """Unpack a set's official archives, or say what a folder of your own holds.

    For imagenet, the pictures of ILSVRC2012_img_{train,val}.tar are sorted into a folder a class.

    [dim]bisam data prepare imagenet --data-dir data[/dim]
    [dim]bisam data prepare folder:pictures[/dim]
    """
    from ..data.official import archives
    from ..data.official import prepare as make
    from ..data.read import folder_of
    from ..data.verify import report_folder
    from ..data.verify import verify as check

    _known(name)
    if name.startswith("folder:"):
        lines = report_folder(folder_of(name.partition(":")[2], data_dir))
        for line in lines:
            _tell(line)
        if any(line.startswith("broken: ") for line in lines):
            raise typer.Exit(1)
        return
    if archives(name):
        make(name, data_dir, _tell)
    else:  # nothing to unpack: digits, texts
        _rows(check(name, data_dir))


def _rows(checked: "list[Checked]") -> None:
    console = Console(soft_wrap=True)
    for path, state, note in checked:
        console.print(f"[{_MARKS[state]}]{state}[/]", end="  ")
        console.print(f"{path}{f': {note}' if note else ''}", markup=False, highlight=False)


def _known(name: str) -> None:
    known = (*DATA, "cifar-n")
    if name not in known and name.partition(":")[0] not in ("glue", "folder", "text"):
        raise RecipeError(
            f"{name!r} is none of {', '.join(known)}, glue:TASK, folder:PATH, text:PATH{nearest(name, known)}"
        )


def _tell(line: str) -> None:
    Console(soft_wrap=True).print(line, markup=False, highlight=False)


def _remedy(name: str, data_dir: Path) -> str:
    """Say how to get a set whole; what is deleted for it is the set's own folder, and nothing else."""
    from ..data.catalogue import CATALOGUE

    there = [data_dir / inner for inner in CATALOGUE[name].inner if (data_dir / inner).exists()]
    delete = f"Delete {there[0]}, for what is there is not got again; then: " if there else "To get it: "
    return f"{delete}bisam data fetch {name} --data-dir {data_dir}"
