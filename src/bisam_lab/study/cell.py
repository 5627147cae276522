"""One run in its folder: trained by one process at a time, finished once, never run again."""

import json
from pathlib import Path

from filelock import FileLock, Timeout

from ..recipe import Recipe
from ..run.checkpoint import Checkpoints
from ..run.observer import Observer
from ..run.result import Run, RunResult
from ..run.train import train
from .files import read_result, write_text

__all__ = ["Busy", "run_cell"]


class Busy(Exception):  # noqa: N818 it is no error
    """Another process is training this run."""


def run_cell(
    recipe: Recipe,
    run: Run,
    folder: Path,
    *,
    data_dir: Path | None = None,
    observer: Observer | None = None,
    every: float = 30.0,
    keep: bool = False,
    wandb: str | None = None,
) -> RunResult:
    """Train a run in its folder, from its checkpoint if there is one, or return the result that is there.

    Args:
        recipe: the variant's own.
        run: which one.
        folder: of this run alone.
        data_dir: where data sets lie.
        observer: is told of steps and epochs.
        every: seconds between checkpoints.
        keep: keep checkpoints once the run is finished; else they go.
        wandb: project of Weights & Biases to log to, too.

    Raises:
        Busy: another process has it, on this machine or on one that shares the file system.
        UnreadableError: the result there is damaged.
        Stopped: the observer asked for it; what is needed to go on is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if (found := read_result(folder, run)) is not None:
                return found
            result = train(
                recipe,
                run.method,
                run.seed,
                variant=run.variant,
                data_dir=data_dir,
                folder=folder,
                observer=observer,
                every=every,
                keep=keep,
                wandb=wandb,
            )
            write_text(folder / "result.json", json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
            if not keep:
                Checkpoints(folder / "checkpoints").remove()
            return result
    except Timeout:
        raise Busy(str(run)) from None
