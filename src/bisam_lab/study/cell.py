"""One run in its folder. One process at a time trains it, and a finished run is never trained again."""

import json
import time
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from ..recipe import Recipe, digest
from ..run.asking import Asking, Clock, answered
from ..run.checkpoint import Checkpoints
from ..run.observer import Observer
from ..run.result import Run, RunResult
from ..run.train import training
from .files import read_result, write_text

__all__ = ["Busy", "cell", "run_cell"]


class Busy(Exception):  # noqa: N818 not an error
    """Another process is training this run."""


def cell(
    recipe: Recipe,
    run: Run,
    folder: Path,
    *,
    data_dir: Path | None = None,
    observer: Observer | None = None,
    every: float = 30.0,
    keep: bool = False,
    keep_every: int | None = None,
    wandb: str | None = None,
    clock: Clock = time.perf_counter,
    stack: int = 1,
) -> Asking[RunResult]:
    """Train a run in its folder, asking for each pass, from its last checkpoint if there is one.

    A finished run's result is returned at once.

    Args:
        recipe: of the run's variant.
        run: variant, seed and method.
        folder: of this run alone.
        data_dir: folder of the data sets.
        observer: is called after each step and epoch.
        every: seconds between checkpoints.
        keep: keep the checkpoints of a finished run; otherwise they are deleted.
        keep_every: keep the weights after each so many epochs, too.
        wandb: project of Weights & Biases to log to as well.
        clock: tells the seconds that the run has taken.
        stack: runs that are trained together, for the result.

    Raises:
        Busy: another process is training it, on this machine or on one that shares the file system.
        UnreadableError: the stored result is damaged.
        OtherRecipeError: the stored result is of another recipe.
        Stopped: the observer stopped the run; its state is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if (found := read_result(folder, run, digest(recipe), recipe.train.epochs)) is not None:
                return found
            result = yield from training(
                recipe,
                run.method,
                run.seed,
                variant=run.variant,
                data_dir=data_dir,
                folder=folder,
                observer=observer,
                every=every,
                keep=keep,
                keep_every=keep_every,
                wandb=wandb,
                clock=clock,
                stack=stack,
            )
            result = replace(result, equal_cost=run.equal_cost)
            write_text(folder / "result.json", json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
            if not keep:
                Checkpoints(folder / "checkpoints").remove()
            return result
    except Timeout:
        raise Busy(str(run)) from None


run_cell = answered(cell)
