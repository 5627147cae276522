"""Cost against size: time and memory of methods on networks from ViT-Ti to a decoder, whole and with adapters.

A job is one network, trained in one way, with all methods. Each job is a process of its own, so one that is killed for
its memory leaves the others alone. What a method needs is counted before on tensors without contents; what does not
fit is refused with the calculation, and stands in the result all the same. The result is written after each method, and
a later call goes on from there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import RecipeError, nearest, one_line
from ...untrusted import parse_json, read_text
from .networks import NETWORKS, TRAININGS

__all__ = ["METHODS", "Cell", "available", "grid", "read"]

#: The methods of a grid by default: one of each kind of memory.
METHODS = ("sam", "bisam-log", "asam", "gsam", "vasso", "momentumsam")
_FORMAT = "bisam grid 1"


@dataclass(frozen=True)
class Cell:
    """One method on one network, trained in one way.

    Attributes:
        network: a key of :data:`.networks.NETWORKS`.
        training: full or lora.
        method: its name; ``plain`` is AdamW alone.
    """

    network: str
    training: str
    method: str

    @property
    def key(self) -> str:
        """Its name in the result."""
        return f"{self.network} {self.training} {self.method}"


def grid(
    out: Path,
    *,
    networks: Sequence[str],
    methods: Sequence[str],
    rounds: int,
    memory: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure what is not in ``out`` yet, and return all of it.

    Args:
        out: the JSON file of the result; it is written after each cell.
        networks: keys of :data:`.networks.NETWORKS`.
        methods: names of methods, without the plain optimizer, which each is measured beside.
        rounds: how often each method is timed.
        memory: GiB that a process may use; None asks the machine.
        tell: is called with a line about each cell.

    Raises:
        RecipeError: an unknown network, or a file that is no result of a grid, or of other settings.
    """
    for name in networks:
        if name not in NETWORKS:
            raise RecipeError(f"--networks {name} is none of {', '.join(NETWORKS)}{nearest(name, NETWORKS)}")
    result = read(out)
    limit = available() if memory is None else int(memory * 2**30)
    for network in networks:
        for training in TRAININGS:
            wanted = [m for m in methods if "ratios" not in result["cells"].get(Cell(network, training, m).key, {})]
            if not wanted:
                tell(f"{network} {training}: here already")
            for row in _job(network, training, wanted, rounds, limit):
                result["machine"] = row.pop("machine", result.get("machine"))
                result["cells"][row.pop("key")] = row
                _write(out, result)
                tell(row["said"])
    return result


def _job(network: str, training: str, methods: Sequence[str], rounds: int, limit: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one process; one that ends early is a row for each method that it owes."""
    if not methods:
        return
    job = {"network": network, "training": training, "methods": methods, "rounds": rounds, "limit": limit}
    owed = list(methods)
    with subprocess.Popen(
        [sys.executable, "-m", "bisam_lab.bench.grid.job", json.dumps(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("{"):
                row = json.loads(line)
                owed.remove(row["method"])
                yield row
        said = process.stderr.read().strip().splitlines()[-1:] or [f"exit code {process.wait()}"]
    for method in owed:
        cell = Cell(network, training, method)
        yield {"key": cell.key, **asdict(cell), "error": one_line(said[0]), "said": f"{cell.key}: {one_line(said[0])}"}


def read(path: Path) -> dict[str, Any]:
    """Return a grid's result, or an empty one where there is no file.

    Raises:
        RecipeError: the file is another one.
    """
    if not path.exists():
        return {"format": _FORMAT, "cells": {}}
    try:
        found = parse_json(read_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT or not isinstance(found.get("cells"), dict):
        raise RecipeError(f"{path} is no result of bisam bench --grid: name another file with --out")
    return found


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def available() -> int:
    """Return the bytes that a new process could use: of the GPU if there is one, else of the machine."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
