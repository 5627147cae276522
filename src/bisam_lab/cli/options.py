"""What several commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from ..errors import RecipeError
from ..importing import no_collection
from .completion import complete_field, complete_recipe
from .places import disk

if TYPE_CHECKING:
    from ..parallel.engine import Engine
    from ..recipe import Recipe, Understood

__all__ = [
    "CpusPerRun",
    "DataDir",
    "EngineOption",
    "Export",
    "GpusPerRun",
    "Json",
    "LabelNoise",
    "Overrides",
    "RayAddress",
    "RecipeName",
    "Slurm",
    "Smoke",
    "Test",
    "engine_of",
    "load",
    "read",
    "understood",
]


RecipeName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="[RECIPE]",
        help="A recipe's name (bisam recipes list) or YAML file; or your data: a folder of pictures, a CSV of texts.",
        autocompletion=complete_recipe,
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FIELD=VALUE]...",
        help="Any field, such as train.lr=0.05; lr=0.05 and --lr 0.05 are the same.",
        autocompletion=complete_field,
    ),
]
LabelNoise: TypeAlias = Annotated[
    float | None, typer.Option(min=0, max=0.99, help="Share of training labels moved to another class.")
]
DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(parser=disk, metavar="PATH", envvar="BISAM_DATA", help="Where data sets lie that are read from disk."),
]
#: Another form of a study's results.
Export: TypeAlias = Annotated[
    Literal["benchopt"] | None,
    typer.Option(help="Write the runs as benchopt.parquet into the study's folder, for `benchopt plot`."),
]
Test: TypeAlias = Annotated[
    Literal["t", "wilcoxon", "bootstrap"], typer.Option(help="Paired test and interval of the differences.")
]
Smoke: TypeAlias = Annotated[bool, typer.Option("--smoke", help="The recipe's small size: a minute on two cores.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON for a script instead of text.")]

EngineOption: TypeAlias = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option("--engine", help="Where to run: processes of this machine, a Ray cluster, a Slurm cluster."),
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT|auto", help="Of the Ray cluster; RAY_ADDRESS or one of this machine by default."),
]
Slurm: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="partition, time, memory, requeue, account and so on; cluster=local tries it on this machine.",
    ),
]
CpusPerRun: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Cores and threads of a run on a cluster; a stack of runs is one.")
]
GpusPerRun: TypeAlias = Annotated[
    float | None, typer.Option(help="On a cluster; 0.5 lets two share one. By default one where the recipe may use it.")
]


def engine_of(
    recipe: "Recipe",
    name: Literal["local", "ray", "slurm"],
    jobs: int | None,
    ray_address: str | None,
    slurm: str | None,
    cpus: int,
    gpus: float | None,
) -> "Engine":
    """Return where to run, as the command line says.

    Raises:
        RecipeError: an option has no effect there, or cannot be read; there is no such cluster.
    """
    from ..parallel.engine import Engine

    settings: dict[str, str] = {}
    for part in (slurm or "").split(",") if slurm else []:
        key, equals, value = part.strip().partition("=")
        if not (key and equals and value):
            raise RecipeError(f"--slurm {part!r}: say KEY=VALUE, such as partition=gpu,time=2:00:00")
        settings[key.replace("-", "_")] = value
    engine = Engine(name, jobs, cpus, gpus, ray_address, settings)
    if name != "local":
        from ..parallel.pools import check  # here: it imports torch

        check(engine, recipe)
    return engine


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
    return load(understood(recipe, overrides, label_noise), smoke=smoke, **fields)


def understood(recipe: str, overrides: list[str] | None, label_noise: float | None = None) -> "Understood":
    """Return the recipe and overrides that the command's words stand for, and say how they are read if that differs.

    Raises:
        RecipeError: a word with no meaning, or with several.
    """
    from .. import recipe as recipes

    with no_collection():  # a recipe's names are checked against the library's, which imports torch
        found = recipes.understood(recipe, overrides or [])
    if found.guessed:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(f"Read as: {found}", style="dim", highlight=False, markup=False)
    noise = [] if label_noise is None else [f"data.label_noise={label_noise}"]
    return found._replace(overrides=[*found.overrides, *noise])


def load(words: "Understood", *, smoke: bool = False, **fields: object) -> "Recipe":
    """Load a recipe with its overrides and ``fields``; those that are None say nothing.

    Raises:
        RecipeError: what cannot be run.
    """
    from .. import recipe as recipes

    given = [f"{key}={value}" for key, value in fields.items() if value is not None]
    with no_collection():  # to check the methods' names imports torch
        return recipes.load(words.recipe, [*words.overrides, *given], smoke=smoke)
