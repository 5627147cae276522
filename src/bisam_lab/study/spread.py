"""One run in its folder, trained by several processes together; the first one writes."""

import contextlib
from dataclasses import replace
from pathlib import Path

from ..measures.taking import taker
from ..recipe import Recipe, RecipeError, digest
from ..run.checkpoint import CheckpointError
from ..run.fabric import join_fabric
from ..run.observer import Observer
from ..run.place import check_place
from ..run.result import Run, RunResult
from ..run.team import Team, losing
from ..run.train import train
from .files import UnreadableError, read_result, write_result
from .hold import Busy, hold

__all__ = ["run_spread"]


def run_spread(
    recipe: Recipe,
    run: Run,
    folder: Path,
    *,
    data_dir: Path | None = None,
    observer: Observer | None = None,
    every: float = 30.0,
    keep_every: int | None = None,
    wandb: str | None = None,
) -> RunResult:
    """Train a run in its folder, as one of the processes that a launcher has started for it.

    What :func:`~.cell.run_cell` does alone, they do together: all return the result, and where one fails, all do.

    Args:
        recipe: of the run's variant.
        run: variant, seed and method.
        folder: of this run alone, on a disk that all processes share.
        data_dir: folder of the data sets.
        observer: is called after each step and epoch.
        every: seconds between checkpoints.
        keep_every: keep the weights after each so many epochs, too.
        wandb: project of Weights & Biases to log to as well.

    Raises:
        Busy: other processes are training it.
        LostError: another process has ended.
        RecipeError: as :func:`~.cell.run_cell`; measures of a sharded network.
        Stopped: the observer of one of the processes stopped the run; its state is saved.
        UnreadableError: the stored result is damaged.
    """
    if recipe.measures and recipe.engine.sharded:
        raise RecipeError("measures are not taken of a network in shards: leave them out, or set engine.strategy=ddp")
    check_place(recipe.engine)
    with losing(), contextlib.ExitStack() as held:
        team = Team(join_fabric(recipe.engine))

        def begin() -> RunResult | None:
            if not team.first:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(folder))
            return read_result(folder, run, digest(recipe), recipe.train.epochs)

        errors = (Busy, UnreadableError, OSError)
        if (found := team.gathered(team.all_or_none(begin, *errors))[0]) is not None:
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
            keep_every=keep_every,
            wandb=wandb,
            measure=taker(recipe),
        )
        result = replace(result, equal_cost=run.equal_cost)
        team.all_or_none(lambda: write_result(folder, result) if team.first else None, CheckpointError, OSError)
        return result
