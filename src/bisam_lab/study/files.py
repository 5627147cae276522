"""Files of a study: each is written completely or not at all, and checked when it is read."""

import json
import os
import secrets
from pathlib import Path

from ..budget import Budget
from ..recipe import RecipeError
from ..run.result import Run, RunResult

__all__ = [
    "BUDGET",
    "TREES",
    "UnreadableError",
    "make_folder",
    "read_budget",
    "read_result",
    "read_results",
    "temporary",
    "write_text",
]

#: The folders of the runs inside a study's: those with the recipe's epochs, and those whose epochs spend the budget.
TREES = {False: "runs", True: "equal-cost"}
#: What each method may spend, and what its steps cost.
BUDGET = "budget.json"


class UnreadableError(ValueError):
    """A result cannot be read, or belongs to another run."""


def read_result(folder: Path, run: Run) -> RunResult | None:
    """Return the result of a run; None if the run is not finished.

    Raises:
        UnreadableError: the file is damaged, or holds the result of another run.
    """
    path = folder / "result.json"
    try:
        result = RunResult.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    if result.run != run:
        raise UnreadableError(f"{path} is the result of {result.run}, not of {run}")
    return result


def read_budget(folder: Path) -> Budget | None:
    """Return a study's budget; None if it has none.

    Raises:
        RecipeError: the file is damaged.
    """
    path = folder / BUDGET
    try:
        return Budget.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RecipeError(f"{path} is damaged ({error}): choose another folder with --out") from None


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all. It is on the disk when the function returns."""
    fresh = temporary(path)
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Return a path in the same folder, with the same suffix, that no other writer on any machine uses."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")


def make_folder(folder: Path) -> None:
    """Create the folder that ``--out`` names, if it does not exist.

    Raises:
        RecipeError: it is a file, lies inside a file, or the system does not allow to create it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--out {folder} cannot be created ({error.strerror}): name another folder") from None


def read_results(folder: Path) -> tuple[list[RunResult], list[str]]:
    """Return the results of all finished runs in a study's folder, and the paths of results that cannot be read."""
    found, unreadable = [], []
    for equal_cost, tree in TREES.items():
        for path in sorted((folder / tree).rglob("seed-*/result.json")):
            try:
                *variant, method, seed = path.parent.relative_to(folder / tree).parts
                run = Run("/".join(variant), int(seed.removeprefix("seed-")), method, equal_cost)
                if (result := read_result(path.parent, run)) is not None:
                    found.append(result)
            except ValueError:
                unreadable.append(str(path.relative_to(folder)))
    return sorted(found, key=lambda result: result.run), unreadable
