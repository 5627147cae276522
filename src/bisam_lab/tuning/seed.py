"""One seed of a trial: trained by this process, or by several together, epoch by epoch."""

from collections.abc import Generator
from pathlib import Path

from ..parallel.worker import Reporter
from ..recipe import Recipe
from ..run.asking import alone
from ..run.checkpoint import CheckpointError, Checkpoints
from ..run.observer import Observer
from ..run.result import Epoch
from ..run.resumable import Training

__all__ = ["train_seed", "train_seed_in_crew"]


def train_seed(
    recipe: Recipe,
    method: str,
    seed: int,
    data_dir: Path | None,
    folder: Path,
    every: float,
    keep: bool,
    *,
    observer: Observer,
) -> Generator[Epoch, None, None]:
    """Train from the last checkpoint, and yield each epoch; first those that the checkpoint tells of.

    Args:
        recipe: with the trial's setting.
        method: its name.
        seed: of all random numbers.
        data_dir: folder of the data sets.
        folder: of the checkpoints.
        every: seconds between two of them.
        keep: save the state at the end, too.
        observer: can stop it, and receives messages.

    Raises:
        Stopped: the observer has stopped it; the state is saved.
    """
    checkpoints = Checkpoints(folder, observer.note)
    training = Training(recipe, method, seed, data_dir)
    try:
        training.resume(checkpoints)
    except CheckpointError as error:  # another version of bisam may write the recipe in another way
        observer.note(f"{error}; the trial starts again from its first epoch")
        if training.team.first:
            checkpoints.remove()
        training = Training(recipe, method, seed, data_dir)  # without half of that state
    yield from list(training.history)
    while not training.ended:
        epoch = alone(training.epoch(observer, checkpoints, every))
        observer.epoch(epoch)
        yield epoch
    if keep:
        training.save(checkpoints)


def train_seed_in_crew(
    job: str, recipe: Recipe, method: str, seed: int, data_dir: Path | None, folder: Path, every: float, keep: bool
) -> Generator[Epoch, None, None]:
    """Do one process's part of :func:`train_seed`; the first one reports as ``job``."""
    return train_seed(recipe, method, seed, data_dir, folder, every, keep, observer=Reporter(job))
