"""One run in its folder, trained by several processes together; the first one writes."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from ..measures.taking import taker
from ..recipe import Recipe, digest
from ..run.asking import Asking, Clock, answered
from ..run.checkpoint import CheckpointError
from ..run.fabric import join_fabric
from ..run.observer import Observer
from ..run.place import check_place
from ..run.result import Run, RunResult
from ..run.team import Team, losing
from ..run.train import training
from .cell import Watched, tidy
from .claim import Claim
from .files import UnreadableError, read_result, write_result
from .hold import Busy, Hold, hold

__all__ = ["run_spread", "spread"]


def spread(
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
    keep_weights: bool = False,
    patience: float = 0.0,
) -> Asking[RunResult]:
    """Train a run in its folder, as one of the processes that a launcher has started for it, asking for each pass.

    What :func:`~.cell.cell` does alone, they do together: all return the result, and where one fails, all do.

    Args:
        recipe: of the run's variant.
        run: variant, seed and method.
        folder: of this run alone, on a disk that all processes share.
        data_dir: folder of the data sets.
        observer: is called after each step and epoch.
        every: seconds between checkpoints.
        keep: keep the checkpoints of a finished run; otherwise they are deleted.
        keep_every: keep the weights after each so many epochs, too.
        wandb: project of Weights & Biases to log to as well.
        clock: tells the seconds that the run has taken.
        keep_weights: keep at least the tested weights, ``checkpoints/best.pt``.
        patience: seconds to wait where other processes are training it.

    Raises:
        Busy: other processes are training it.
        LostError: another process has ended.
        RecipeError: as :func:`~.cell.cell`; measures of a sharded network.
        Stopped: the observer of one of the processes stopped the run; its state is saved.
        UnreadableError: the stored result is damaged.
    """
    measure = taker(recipe)
    check_place(recipe.engine)
    with losing(), contextlib.ExitStack() as held:
        team = Team(join_fabric(recipe.engine))

        mine: list[Hold | Claim] = []

        def begin() -> RunResult | None:
            if not team.first:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            mine.append(held.enter_context(hold(folder, patience)))
            return read_result(folder, run, digest(recipe), recipe.train.epochs)

        errors = (Busy, UnreadableError, OSError)
        if (found := team.gathered(team.all_or_none(begin, *errors))[0]) is not None:
            return found
        try:
            result = yield from training(
                recipe,
                run.method,
                run.seed,
                variant=run.variant,
                data_dir=data_dir,
                folder=folder,
                observer=Watched(observer or Observer(), mine),
                every=every,
                keep=keep or keep_weights,
                keep_every=keep_every,
                wandb=wandb,
                clock=clock,
                measure=measure,
            )
        except Exception:
            for one in mine:
                one.check()
            raise
        result = replace(result, equal_cost=run.equal_cost)

        def end() -> RunResult:
            if not team.first:
                return result
            there = write_result(folder, result, first=True)
            tidy(folder, keep=keep, keep_weights=keep_weights)
            return there

        return team.gathered(team.all_or_none(end, CheckpointError, OSError))[0]


run_spread = answered(spread)
