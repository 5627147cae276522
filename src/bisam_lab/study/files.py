"""Files of a study: each is written completely or not at all, and checked when it is read."""

import errno
import json
import os
import secrets
from pathlib import Path

from ..budget import Budget
from ..errors import RecipeError, one_line
from ..run.result import Run, RunResult
from ..untrusted import FileError, parse_json, read_text
from .digests import Digests, read_recipe

__all__ = [
    "BUDGET",
    "TREES",
    "OtherRecipeError",
    "UnreadableError",
    "make_folder",
    "read_budget",
    "read_result",
    "read_results",
    "temporary",
    "write_result",
    "write_text",
]

#: The folders of the runs inside a study's: those with the recipe's epochs, and those whose epochs spend the budget.
TREES = {False: "runs", True: "equal-cost"}
#: What each method may spend, and what its steps cost.
BUDGET = "budget.json"


class UnreadableError(ValueError):
    """A result cannot be read, or belongs to another run."""


class OtherRecipeError(RecipeError):
    """A result is whole, and belongs to another recipe."""


def read_result(folder: Path, run: Run, recipe: str | None = None, epochs: int | None = None) -> RunResult | None:
    """Return the result of a run; None if the run is not finished.

    Args:
        folder: of the run.
        run: which one it must be.
        recipe: digest of the recipe that it must be of; None: of any. A result that was written before results
            carried a digest is of any recipe, and its digest is empty.
        epochs: that the recipe trains; None: any number.

    Raises:
        UnreadableError: the file is damaged, or holds the result of another run.
        OtherRecipeError: it holds the result of another recipe.
    """
    path = folder / "result.json"
    try:
        result = RunResult.from_dict(parse_json(read_text(path)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UnreadableError(f"{path} cannot be read ({_reason(error)})") from None
    if result.run != run:
        raise UnreadableError(f"{path} is the result of {result.run}, not of {run}")
    if recipe is not None and result.recipe not in ("", recipe):
        raise OtherRecipeError(f"{path} is the result of another recipe: choose another folder with --out")
    if epochs is not None and len(result.history) > epochs:
        raise UnreadableError(
            f"{path} has a history of {len(result.history):,} epochs, and its recipe trains {epochs:,}"
        )
    return result


def _reason(error: Exception) -> str:
    if isinstance(error, FileError):
        return error.reason
    return one_line(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error), 80)


def read_budget(folder: Path) -> Budget | None:
    """Return a study's budget; None if it has none.

    Raises:
        RecipeError: the file is damaged.
    """
    path = folder / BUDGET
    try:
        return Budget.from_dict(parse_json(read_text(path)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RecipeError(f"{path} is damaged ({_reason(error)}): choose another folder with --out") from None


def write_result(folder: Path, result: RunResult, first: bool = False) -> RunResult:
    """Write a run's result into its folder, and return the result that lies there.

    Args:
        folder: of the run.
        result: of the run.
        first: leave one that is there, which another process has written in the meantime.
    """
    path, text = folder / "result.json", json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    write_text(path, text, first=first)
    return (read_result(folder, result.run) if first else None) or result


def write_text(path: Path, text: str, first: bool = False) -> None:
    """Write a file completely or not at all. It is on the disk when the function returns.

    Args:
        path: of the file.
        text: what it holds then.
        first: leave a file that is there. A link is made by one machine alone, also on a network file system.

    Raises:
        OSError: it cannot be written; the error names the file, also where the disk is full.
    """
    fresh = temporary(path)
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        (_put_first if first else os.replace)(fresh, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        fresh.unlink(missing_ok=True)


def _put_first(fresh: Path, path: Path) -> None:
    """Give a file its name unless the name is taken."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if not path.exists():  # this file system knows no links
            os.replace(fresh, path)


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


def _digests(folder: Path) -> Digests | None:
    try:
        return Digests(read_recipe(folder / "recipe.yaml"), read_budget(folder))
    except (RecipeError, OSError):
        return None


def read_results(folder: Path) -> tuple[list[RunResult], list[str]]:
    """Return the results of all finished runs in a study's folder, and the paths of those that cannot be read.

    Results of another recipe than the folder's are among the latter, and marked. The folder's recipe decides, unless it
    is of another version of bisam and cannot be read.
    """
    found, unreadable, digests = [], [], _digests(folder)
    for equal_cost, tree in TREES.items():
        for path in sorted((folder / tree).rglob("seed-*/result.json")):
            try:
                *variant, method, seed = path.parent.relative_to(folder / tree).parts
                run = Run("/".join(variant), int(seed.removeprefix("seed-")), method, equal_cost)
                expected = (None, None) if digests is None else digests.expected(run)
                if (result := read_result(path.parent, run, *expected)) is not None:
                    found.append(result)
            except OtherRecipeError:
                unreadable.append(f"{path.relative_to(folder)} (of another recipe)")
            except ValueError:
                unreadable.append(str(path.relative_to(folder)))
    return sorted(found, key=lambda result: result.run), unreadable
