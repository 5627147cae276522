"""The command ``bisam recipes``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import RecipeError
from .completion import complete_name
from .options import Json
from .places import disk

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The experiments that come with the library: list, show, copy.")

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="A name from the list.", autocompletion=complete_name)]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """Say what there is.

    [dim]bisam recipes list[/dim]
    """
    from rich.table import Table

    from .. import recipe as recipes

    rows = [_row(name) for name in recipes.names()]
    if as_json:
        print(json.dumps(rows))
        return
    view = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("recipe", "what", "data", "runs"):
        view.add_column(column, justify="right" if column == "runs" else "left")
    for row in rows:
        view.add_row(*(str(row[key]) for key in ("name", "description", "data", "runs")))
    Console().print(view, highlight=False)


@app.command()
def show(name: Name) -> None:
    """Print a recipe as its file stands, comments included.

    [dim]bisam recipes show table1-cifar10[/dim]
    """
    from .. import recipe as recipes

    text = recipes.text(name)
    console = Console()
    if console.is_terminal:
        from rich.syntax import Syntax

        console.print(Syntax(text, "yaml", background_color="default"))
    else:
        print(text, end="")


@app.command()
def copy(
    name: Name,
    to: Annotated[
        Path | None, typer.Argument(parser=disk, metavar="[FILE]", help="RECIPE.yaml here by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a recipe, to change it and run the copy.

    [dim]bisam recipes copy digits mine.yaml && bisam compare mine.yaml[/dim]
    """
    from .. import recipe as recipes

    text = recipes.text(name)
    path = to or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already: name another file, or overwrite it with --force")
    path.write_text(text, encoding="utf-8")
    print(f"{path}: bisam compare {path}")
    Console(stderr=True, soft_wrap=True).print(
        "Where it names file.py:NAME, whoever runs it runs that file: read the file of a recipe that is not yours.",
        highlight=False,
        style="dim",
    )


def _row(name: str) -> dict[str, str | int]:
    """Say what a recipe is, from its file as it stands: to check its names takes torch, and torch takes seconds."""
    from .. import recipe as recipes

    fields = recipes.outline(name)
    variants, methods, seeds = fields["variants"], len(fields["methods"]), fields["seeds"]
    sets = [settings.get("data.name", fields["data"]["name"]) for settings in variants.values() or [{}]]
    return {
        "name": name,
        "description": fields["description"],
        "data": ", ".join(dict.fromkeys(sets)),
        "variants": len(variants),
        "methods": methods,
        "seeds": seeds,
        "runs": len(sets) * methods * seeds,
    }
