"""The audits of a folder: those that the command names, in its order, and what is found of each so far."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import RecipeError, shown
from ..study.files import make_folder, write_text
from ..untrusted import parse_json, read_text
from .task import Task, mark_of

__all__ = ["NUMBERS", "PAGE", "Audits", "WritePage"]

#: Files of the folder.
PAGE, NUMBERS = "audit.html", "audit.json"
#: After a writing nothing is written for so many times as long as it took: the page of a thousand audits takes long.
REST = 10.0

#: Writes the page: from the audits, the command that made them, and the path.
WritePage: TypeAlias = Callable[[Sequence[dict[str, Any]], str, Path], None]


class Audits:
    """Audits, of which some are done.

    Args:
        folder: of page and numbers.
        tasks: all that the command names.
        command: as the user typed it.
        page: writes the page.

    Attributes:
        folder: the same.
        tasks: the same, by their marks.

    Raises:
        RecipeError: the folder cannot be written, or holds other files, or audits that the command does not name,
            which would be lost.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task], command: str, page: WritePage) -> None:
        self.folder, self.tasks = folder, {task.mark: task for task in tasks}
        self._command, self._page = command, page
        self._found: dict[str, dict[str, Any]] = {}
        self._rests_until = 0.0
        make_folder(folder)
        if not os.access(folder, os.W_OK):
            raise RecipeError(f"--out {folder} cannot be written: name another folder")
        self._take_over(_before(folder))
        self.collect()

    def _take_over(self, before: Sequence[dict[str, Any]]) -> None:
        for one in before:
            mark = mark_of(one.get("asked"))
            if mark not in self.tasks:
                raise RecipeError(
                    f"--out {self.folder} holds an audit with other checkpoints, options or version "
                    f"({shown(one.get('name'), 40)}): choose another --out, or --restart keeps it beside"
                )
            if not one.get("stopped"):
                self._found[mark] = self.tasks[mark].named(one)

    @property
    def found(self) -> list[dict[str, Any]]:
        """What is found so far, in the order of the command."""
        return [self._found[mark] for mark in self.tasks if mark in self._found]

    @property
    def missing(self) -> list[Task]:
        """Audits that are not done."""
        return [task for mark, task in self.tasks.items() if mark not in self._found]

    def collect(self, *, stopped: bool = False) -> list[dict[str, Any]]:
        """Take what processes have written that nobody has read, and return it.

        Args:
            stopped: take audits, too, that were stopped before their end.
        """
        there = [(task, found) for task in self.missing if (found := task.read()) is not None]
        return [self._put(task, found) for task, found in there if stopped or not found.get("stopped")]

    def add(self, mark: str, found: dict[str, Any]) -> dict[str, Any]:
        """Add what an audit found, and write numbers and page unless they were written a moment ago."""
        fresh = self._put(self.tasks[mark], found)
        if time.monotonic() >= self._rests_until:
            self.write()
        return fresh

    def _put(self, task: Task, found: dict[str, Any]) -> dict[str, Any]:
        self._found[task.mark] = task.named(found)
        return self._found[task.mark]

    def write(self) -> None:
        """Write numbers and page of all that is found."""
        begun = time.monotonic()
        if self._found:
            text = json.dumps({"command": self._command, "audits": self.found}, allow_nan=False)
            write_text(self.folder / NUMBERS, text + "\n")
            self._page(self.found, self._command, self.folder / PAGE)
        for mark in self._found:
            self.tasks[mark].result.unlink(missing_ok=True)
        self._rests_until = time.monotonic() + REST * (time.monotonic() - begun)


def _before(folder: Path) -> list[dict[str, Any]]:
    """Return the audits that a folder holds.

    Raises:
        RecipeError: it holds files of another kind.
    """
    path = folder / NUMBERS
    if not path.exists():
        if any(not file.name.startswith(".") for file in folder.iterdir()):
            raise RecipeError(f"--out {folder} holds files of another kind: choose an empty folder or an audit's own")
        return []
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise RecipeError(f"{path} cannot be read ({error}): choose another folder with --out") from None
    audits = found.get("audits") if isinstance(found, dict) else None
    return [one for one in audits if isinstance(one, dict)] if isinstance(audits, list) else []
