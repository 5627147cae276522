"""The command ``bisam``."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .. import recipe as recipes
from ..recipe import RecipeError
from .data import data
from .rho_range import rho_range

__all__ = ["main"]

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command("rho-range")(rho_range)
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
    """Train, and compare honestly, sharpness-aware methods."""


@app.command()
def compare(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="A recipe's name or a YAML file.")] = "digits",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Any field, such as train.lr=0.05.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated; parts join by +, as in sgd,sam,bisam-log+asam.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs a method; seed k is the same for every method.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; the first one by default.")] = None,
    label_noise: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="Share of training labels moved to another class.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once; a core each by default, one on a GPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder; studies/RECIPE by default.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where fashion-mnist, cifar10, cifar100 lie.")] = None,
) -> None:
    """Train METHODS x SEEDS, paired, and say which differ.

    Finished runs are never run again: after Ctrl-C, a kill or with more seeds, the same command goes on.

    [dim]bisam compare[/dim]
    [dim]bisam compare digits --methods sgd,sam --seeds 10 sharpness.rho=0.2[/dim]
    [dim]bisam compare cifar10 --data-dir data --label-noise 0.4[/dim]
    """
    recipe, given = recipes.words(recipe, overrides)
    if methods is not None:
        given.append(f"methods=[{methods}]")
    if seeds is not None:
        given.append(f"seeds={seeds}")
    if label_noise is not None:
        given.append(f"data.label_noise={label_noise}")
    chosen = recipes.load(recipe, given)
    against = baseline or chosen.methods[0]
    if against not in chosen.methods:
        raise RecipeError(f"--baseline {against} is not among the methods {', '.join(chosen.methods)}")
    from .compare import run_comparison  # here, for torch takes seconds to import and --help should not

    try:
        succeeded = run_comparison(
            chosen, against, out=out or Path("studies") / chosen.name, jobs=jobs, data_dir=data_dir
        )
    except KeyboardInterrupt:
        Console(stderr=True).print("\nInterrupted. Finished runs are kept; the same command goes on.")
        raise typer.Exit(130) from None
    if not succeeded:
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a wrong recipe is one sentence and exit code 2, a failed run 1, Ctrl-C 130."""
    try:
        app()
    except RecipeError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2)
    except (OSError, UnicodeDecodeError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
