"""What several commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from ..importing import no_collection

if TYPE_CHECKING:
    from ..recipe import Recipe

__all__ = ["DataDir", "Json", "LabelNoise", "Overrides", "RecipeName", "Smoke", "Test", "complete_recipe", "read"]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of recipes that begin so, for the shell."""
    from .. import recipe as recipes  # here, as in each command: --help reads no recipe

    return [name for name in recipes.names() if name.startswith(incomplete)]


RecipeName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="[RECIPE]",
        help="A recipe's name (bisam recipes list) or a YAML file.",
        autocompletion=complete_recipe,
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Any field, such as train.lr=0.05.")
]
LabelNoise: TypeAlias = Annotated[
    float | None, typer.Option(min=0, max=0.99, help="Share of training labels moved to another class.")
]
DataDir: TypeAlias = Annotated[
    Path | None, typer.Option(envvar="BISAM_DATA", help="Where data sets lie that are read from disk.")
]
Test: TypeAlias = Annotated[
    Literal["t", "wilcoxon", "bootstrap"], typer.Option(help="Paired test and interval of the differences.")
]
Smoke: TypeAlias = Annotated[bool, typer.Option("--smoke", help="The recipe's small size: a minute on two cores.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON for a script instead of text.")]


def read(
    recipe: str,
    overrides: list[str] | None,
    *,
    smoke: bool = False,
    label_noise: float | None = None,
    **fields: object,
) -> "Recipe":
    """Read a recipe as the command line gives it; ``fields`` that are None say nothing.

    Raises:
        RecipeError: what cannot be run.
    """
    from .. import recipe as recipes

    name, given = recipes.words(recipe, overrides)
    if label_noise is not None:
        given.append(f"data.label_noise={label_noise}")
    given += [f"{key}={value}" for key, value in fields.items() if value is not None]
    with no_collection():  # to check the methods' names imports torch
        return recipes.load(name, given, smoke=smoke)
