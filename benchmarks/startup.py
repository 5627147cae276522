"""What a command takes before it does what it is for: seconds of whole processes, and the demo's share beside training.

Each is a fresh process. The bounds are seconds (of the demo, a share), so the ratios are seconds, too. Other work on
the machine makes them larger, and nothing is measured beside them that would cancel it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from target import Target

from bisam_lab.run.environment import cores

__all__ = ["targets"]

_BISAM = str(Path(sys.executable).parent / "bisam")
#: Rounds of what trains, at most: each takes a quarter of a minute, and the demo two.
_FEW = 3
_WHY = (
    "torch, and torch._dynamo, which each of its optimizers imports, take 2.5 s of a whole core; was another at work?"
)


def targets(rounds: int) -> Iterator[Target]:
    """Yield what the commands take to start, and what share of the demo is not training."""
    for bound, args in (
        (0.3, ["--help"]),
        (0.5, ["compare", "--help"]),
        (1.0, ["recipes", "list"]),
        (1.0, ["data", "list"]),
    ):
        taken = tuple(_seconds(args) for _ in range(rounds))
        yield Target("startup", f"bisam {' '.join(args)}, the whole process", "seconds", bound, taken)
    starts = tuple(_until_it_trains() for _ in range(min(rounds, _FEW)))
    yield Target("startup", "bisam compare digits, until the first run trains", "seconds", 4.0, starts, _WHY)
    yield Target("startup", "the demo's wall time in which no run trains", "its wall time", 0.06, (_idle_share(),))


def _seconds(args: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([_BISAM, *args], check=True, capture_output=True, env=_environment())
    return time.perf_counter() - began


def _until_it_trains() -> float:
    """Return the seconds until the first run has built everything and opens its logs, just before its first step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [_BISAM, "compare", "digits", "--seeds", "1", "--methods", "sgd", "--out", folder]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        try:
            while not list(Path(folder).glob("runs/*/seed-*/csv")):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode} before it trained")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def _idle_share() -> float:
    """Return the share of the demo's core seconds that belong to no run: start, table, figure, an idle last core.

    A run's seconds hold its evaluations and logs. One run a core is trained at once.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [_BISAM, "compare", "digits", "--jobs", str(cores()), "--out", folder]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=_environment())
        wall = time.perf_counter() - began
        lines = (Path(folder) / "results.jsonl").read_text().splitlines()
    return 1 - sum(float(json.loads(line)["seconds"]) for line in lines) / (wall * cores())


def _environment() -> dict[str, str]:
    """Return the environment without this process's allocator and threads, which users do not set."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_"))}
