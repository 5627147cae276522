"""The command ``bisam`` and its exit codes."""

import inspect
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import LONGEST_LINE, RecipeError, one_line, shown
from . import recipes
from .audit import audit
from .bench import bench
from .compare import compare
from .data import data
from .guessing import Guessing
from .report import report
from .rho_range import rho_range
from .train import train
from .tune import tune

__all__ = ["flowing", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command(cls=Guessing)(train)
app.command(cls=Guessing)(compare)
app.command(cls=Guessing)(tune)
app.command("rho-range", cls=Guessing)(rho_range)
app.command(cls=Guessing)(bench)
app.command(cls=Guessing)(audit)
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


def flowing(text: str) -> str:
    """Return a docstring as help: a paragraph is one line, for the terminal to wrap; dimmed examples keep theirs."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith("[dim]") else part.replace("\n", " ") for part in paragraphs)


for _command in (*app.registered_commands, *recipes.app.registered_commands, *data.registered_commands):
    assert _command.callback is not None
    _command.help = flowing(_command.callback.__doc__ or "")
assert app.registered_callback is not None
app.registered_callback.help = flowing(_bisam.__doc__ or "")


def main() -> None:
    """Run the command; what the user can mend is one sentence, and never a traceback."""
    try:
        _check_words([*sys.argv[1:], os.environ.get("BISAM_DATA", "")])
        app()
    except RecipeError as error:
        _leave(2, str(error))
    except OSError as error:
        _leave(1, _words(error))
    except UnicodeError as error:
        _leave(1, f"a file or a name is not text in UTF-8 ({error}): save or name it in UTF-8")


def _check_words(words: Sequence[str]) -> None:
    """Refuse words of the command line that are not text: no page, table or log can show them.

    Raises:
        RecipeError: one is not in UTF-8.
    """
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise RecipeError(f"the word {shown(word)} of the command line is not in UTF-8: rename the file or folder")


def _words(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return (
        f"{error.filename}: {error.strerror}. Name a path that is there, and that can be written where it is a result's"
    )


def _leave(code: int, text: str) -> None:
    lines = [one_line(line, LONGEST_LINE) for line in text.splitlines()]
    Console(stderr=True).print(Text.assemble(("error: ", "red"), "\n".join(lines)))
    sys.exit(code)
