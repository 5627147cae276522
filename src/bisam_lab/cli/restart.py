"""The option ``--restart``: begin anew where results of another recipe lie, which are kept beside."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

__all__ = ["RUN", "STUDY", "Restart", "restart"]

Restart: TypeAlias = Annotated[
    bool, typer.Option("--restart", help="Begin anew: what lies in the folder is kept, as FOLDER.1.")
]
#: Names of which a folder of a study, or of a run, has one.
STUDY, RUN = ("recipe.yaml", "study.json"), ("result.json", "checkpoints")


def restart(folder: Path, marks: Collection[str], console: Console) -> None:
    """Set a folder's results aside, and say where they are.

    Raises:
        RecipeError: a process works on the folder, or it cannot be renamed.
    """
    from ..study.aside import set_aside  # here, because torch takes seconds to import and --help must be fast

    there = set_aside(folder, marks)
    said = f"What was in {folder} is now in {there}." if there else f"There was nothing in {folder} to set aside."
    console.print(said, highlight=False, markup=False, soft_wrap=True)
