"""An audit that is asked for: of which checkpoint, by whom, and in which files it lies until it is written."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..study.files import write_text
from ..untrusted import parse_json, read_text
from .checkpoint import HeldOut, Place

__all__ = ["Asked", "Task", "mark_of", "task_of"]


@dataclass(frozen=True)
class Asked:
    """What decides what comes out of an audit, beside its checkpoint; None stands for what it is by default."""

    adversaries: tuple[str, ...] | None
    rhos: tuple[float, ...] | None
    batches: int
    batch_size: int | None
    held_out: HeldOut | None
    sharpness: bool


@dataclass(frozen=True)
class Task:
    """An audit of one checkpoint.

    Attributes:
        place: the checkpoint.
        asked: what is asked of it.
        folder: in which it writes.
        key: what its result depends on, as JSON has it.
    """

    place: Place
    asked: Asked
    folder: Path
    key: dict[str, Any]

    @property
    def mark(self) -> str:
        """What names its files, so that the audits of one folder have files of their own."""
        return mark_of(self.key)

    @property
    def journal(self) -> Path:
        """The file that keeps what is measured until all is."""
        return self.folder / f".measured-{self.mark}.pt"

    @property
    def result(self) -> Path:
        """The file that keeps what was found until it is in the folder's numbers."""
        return self.folder / f".found-{self.mark}.json"

    def read(self) -> dict[str, Any] | None:
        """Return what was found, if a process has written it."""
        try:
            found = parse_json(read_text(self.result))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("asked") == self.key else None

    def write(self, found: dict[str, Any]) -> None:
        """Keep what was found, whoever reads it."""
        write_text(self.result, json.dumps(found, allow_nan=False) + "\n")

    def named(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what was found with the name of the checkpoint, its run and epoch, and what was asked."""
        place = self.place
        return found | {"name": place.name, "run": place.run, "epoch": place.epoch, "asked": self.key}


def task_of(place: Place, asked: Asked, folder: Path) -> Task:
    """Return the audit of a checkpoint as its file is now."""
    recipe = place.recipe.model_dump(mode="json")
    key = {"bisam": version("bisam"), "seed": place.seed, "weights": _file(place.weights), "recipe": recipe}
    return Task(place, asked, folder, json.loads(json.dumps(key | asdict(asked))))


def mark_of(key: object) -> str:
    """Return a digest of a key."""
    return sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _file(path: Path | None) -> list[str | int] | None:
    """Return what tells a file from others and from what it was before."""
    if path is None:
        return None
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
