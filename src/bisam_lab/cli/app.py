"""The command ``bisam`` and its exit codes."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..recipe import RecipeError
from . import recipes
from .bench import bench
from .compare import compare
from .data import data
from .report import report
from .rho_range import rho_range
from .train import train
from .tune import tune

__all__ = ["main"]

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command()(train)
app.command()(compare)
app.command()(tune)
app.command("rho-range")(rho_range)
app.command()(bench)
app.command()(report)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bisam {version('bisam')}")
        raise typer.Exit


@app.callback()
def _bisam(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and leave.")
    ] = False,
) -> None:
    """Train, and compare honestly, sharpness-aware methods.

    Exit codes: 0 done, 1 something failed, 2 a wrong argument or recipe, 130 Ctrl-C, 143 SIGTERM. After the last two,
    as after any kill, the same command goes on.
    """


def main() -> None:
    """Run the command; what the user can mend is one sentence, and never a traceback."""
    try:
        app()
    except RecipeError as error:
        _leave(2, error)
    except (OSError, UnicodeDecodeError) as error:
        _leave(1, error)


def _leave(code: int, error: Exception) -> None:
    Console(stderr=True).print("[red]error:[/red]", escape(str(error)), highlight=False)
    sys.exit(code)
