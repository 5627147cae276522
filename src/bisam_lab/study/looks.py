"""The last look at a study whose seeds are chosen by looks, kept in its folder: its level is that of every table."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..recipe import RecipeError
from ..run.result import RunResult
from ..untrusted import parse_json, read_text
from .files import write_text

__all__ = ["LOOK", "LastLook", "first_seeds", "read_look", "write_look"]

LOOK = "look.json"


class LastLook(NamedTuple):
    """What the last look was.

    Attributes:
        seeds: that every method had.
        level: of its tests, such as 0.00625.
        words: the look in words.
    """

    seeds: int
    level: float
    words: str

    @property
    def sentence(self) -> str:
        """Say at what level the study is read, and why."""
        return f"The number of seeds was chosen by looking at the study ({self.words}): its tables have this level."


def first_seeds(results: Iterable[RunResult], seeds: int) -> list[RunResult]:
    """Return the results of the first so many seeds."""
    every = list(results)
    kept = sorted({result.seed for result in every})[:seeds]
    return [result for result in every if result.seed in kept]


def write_look(folder: Path, look: LastLook) -> None:
    """Keep it in the study's folder."""
    write_text(folder / LOOK, json.dumps(look._asdict()) + "\n")


def read_look(folder: Path) -> LastLook | None:
    """Return the last look at a study; None if its seeds were not chosen by looks.

    Raises:
        RecipeError: the file is damaged.
    """
    path = folder / LOOK
    try:
        values = parse_json(read_text(path))
        look = LastLook(int(values["seeds"]), float(values["level"]), str(values["words"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise RecipeError(f"{path} is damaged: delete it, and repeat bisam compare with --seeds auto") from None
    if not 0 < look.level < 1:
        raise RecipeError(f"{path} is damaged: delete it, and repeat bisam compare with --seeds auto")
    return look
