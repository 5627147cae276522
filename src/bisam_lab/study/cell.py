"""One run in its folder. One process at a time trains it, and a finished run is never trained again."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..measures.taking import taker
from ..recipe import Recipe, digest
from ..run.asking import Asking, Clock, answered
from ..run.checkpoint import Checkpoints
from ..run.epoch import Epoch
from ..run.observer import Observer
from ..run.result import Run, RunResult
from ..run.signatures import Signature
from ..run.train import training
from .claim import Claim, claim
from .files import read_result, write_result
from .hold import Busy, Hold, hold
from .remote_run import RemoteRun

__all__ = ["Busy", "Watched", "cell", "run_cell", "tidy"]


class Watched(Observer):
    """Tells an observer all, and stops a run that another process has taken."""

    def __init__(self, observer: Observer, mine: Sequence[Hold | Claim]) -> None:
        self._observer, self._mine = observer, mine

    def stopping(self) -> bool:
        """Return whether the run must stop."""
        return any(one.lost for one in self._mine) or self._observer.stopping()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Pass it on."""
        self._observer.step(epoch, done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Pass it on."""
        self._observer.epoch(epoch)

    def signature(self, shown: Signature, epoch: int) -> None:
        """Pass it on."""
        self._observer.signature(shown, epoch)

    def about_data(self, text: str) -> None:
        """Pass it on."""
        self._observer.about_data(text)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._observer.note(text)


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
    keep_weights: bool = False,
    patience: float = 0.0,
    there: RemoteRun | None = None,
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
        keep_weights: keep at least the tested weights, ``checkpoints/best.pt``.
        wandb: project of Weights & Biases to log to as well.
        clock: tells the seconds that the run has taken.
        stack: runs that are trained together, for the result.
        patience: seconds to wait where another process is training it.
        there: the run in an object storage, of which the folder is a copy.

    Raises:
        Busy: another process is training it, on this machine or on one that shares the file system.
        UnreadableError: the stored result is damaged.
        OtherRecipeError: the stored result is of another recipe.
        StoreError: the storage does not answer; what is done is in the folder.
        Stopped: the observer stopped the run; its state is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    observer = observer or Observer()
    with contextlib.ExitStack() as held:
        mine: list[Hold | Claim] = [held.enter_context(hold(folder, patience))]
        if there is not None:
            theirs = held.enter_context(claim(there, observer.note, patience))
            mine.append(theirs)
        if (found := read_result(folder, run, digest(recipe), recipe.train.epochs)) is not None:
            return found
        try:
            result = yield from training(
                recipe,
                run.method,
                run.seed,
                variant=run.variant,
                data_dir=data_dir,
                folder=folder,
                observer=Watched(observer, mine),
                every=every,
                keep=keep or keep_weights,
                keep_every=keep_every,
                wandb=wandb,
                clock=clock,
                stack=stack,
                measure=taker(recipe),
            )
        except Exception:
            for one in mine:
                one.check()  # what goes wrong in a folder that another process works in is not this run's fault
            raise
        result = replace(result, equal_cost=run.equal_cost)
        if there is None:
            result = write_result(folder, result, first=True)
        else:
            there.keep(result)
        tidy(folder, keep=keep, keep_weights=keep_weights)
        if there is not None:
            theirs.take()
            result = read_result(folder, run) or result
        return result


def tidy(folder: Path, *, keep: bool, keep_weights: bool) -> None:
    """Delete a finished run's checkpoints, unless ``keep``; where ``keep_weights``, all but the weights."""
    if not keep:
        checkpoints = Checkpoints(folder / "checkpoints")
        checkpoints.remove_states() if keep_weights else checkpoints.remove()


run_cell = answered(cell)
