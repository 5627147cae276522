"""A whole run: from a recipe, a method and a seed to a result. It continues from its last checkpoint."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..recipe import Recipe, digest
from ..registry.metrics import METRICS
from .asking import Asking, Clock, answered
from .base_optimizer import stale_statistics
from .checkpoint import CheckpointError, Checkpoints
from .environment import environment
from .evaluation import collapsed, predictions
from .fabric import Logger
from .logs import WandbLogger, build_loggers, logged
from .observer import Observer
from .result import Run, RunResult, Status
from .resumable import Training

__all__ = ["train", "training"]


def training(
    recipe: Recipe,
    method: str,
    seed: int,
    *,
    variant: str = "",
    data_dir: Path | None = None,
    folder: Path | None = None,
    observer: Observer | None = None,
    every: float = 30.0,
    keep: bool = True,
    keep_every: int | None = None,
    wandb: str | None = None,
    clock: Clock = time.perf_counter,
    stack: int = 1,
) -> Asking[RunResult]:
    """Train once, asking for each pass. Validation chooses the epoch to test. The test set is read once, at the end.

    A run whose loss is not finite stops as ``diverged``. A run that ends hardly better than always guessing the
    commonest class is ``collapsed``. Both keep their scores.

    Args:
        recipe: what to train, without variants.
        method: its name.
        seed: of all random numbers.
        variant: name of the recipe's variant, for the result.
        data_dir: folder of the data sets.
        folder: of logs and checkpoints. An interrupted run continues from it. None keeps nothing.
        observer: is called after each step and epoch, and can stop the run.
        every: seconds between two checkpoints; 0 saves after each step.
        keep: save the finished run, too.
        keep_every: keep the weights before the first epoch and after each so many, for audits; None keeps none.
        wandb: project of Weights & Biases to log to in addition; it needs a folder.
        clock: tells the seconds that the run has taken.
        stack: runs that are trained together, for the result.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
        Stopped: the observer stopped the run; the same call continues it.
        CheckpointError: the folder holds the checkpoint of another run.
    """
    observer = observer or Observer()
    run = Training(recipe, method, seed, data_dir, clock)
    place = environment(run.fabric.device) | ({} if stack == 1 else {"stack": stack})
    if run.about_data:
        observer.about_data(run.about_data)
    if (warning := stale_statistics(run.opt.base, run.model)) is not None:
        observer.note(warning)
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", observer.note)
    if checkpoints is not None:
        _resume(run, checkpoints, observer)
    outputs = _loggers(run, variant, folder, wandb)
    try:
        if checkpoints is not None and keep_every is not None and not (run.history or run.losses):
            run.keep(checkpoints)
        while not run.ended:
            epoch = yield from run.epoch(observer, checkpoints, every)
            for logger in outputs:
                logger.log_metrics(logged(epoch), epoch.epoch)
            observer.epoch(epoch)
            if checkpoints is not None and keep_every is not None and epoch.epoch % keep_every == 0:
                run.keep(checkpoints)
        if checkpoints is not None and keep:
            run.save(checkpoints)
        result = yield from _result(run, variant, place)
        for logger in outputs:
            logger.log_metrics({"test_score": result.test_score}, result.selected_epoch)
    except BaseException:
        _finalize(outputs, "failed")
        raise
    _finalize(outputs, "success")
    return result


train = answered(training)


def _resume(run: Training, checkpoints: Checkpoints, observer: Observer) -> None:
    """Continue from the last checkpoint, if there is one."""
    state = checkpoints.load()
    if state is None:
        return
    try:
        run.restore(state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoints.last}: {error}: choose another folder with --out") from None
    observer.note(f"goes on from epoch {len(run.history) + 1}, after {len(run.losses)} of its steps")


def _loggers(run: Training, variant: str, folder: Path | None, wandb: str | None) -> list[Logger]:
    if folder is None:
        return []
    loggers = build_loggers(folder, run.history)
    if wandb is not None:
        name = str(Run(variant, run.seed, run.method))
        loggers.append(WandbLogger(wandb, name, folder, run.recipe.model_dump(mode="json")))
    return loggers


def _result(run: Training, variant: str, place: dict[str, Any]) -> Asking[RunResult]:
    run.model.load_state_dict(run.chosen)
    labels, test = run.test.labels, run.test.to(run.fabric.device)
    predicted = yield from predictions(run.steps.net, test, run.fabric)
    status: Status = "diverged" if run.diverged else "collapsed" if collapsed(predicted, labels) else "ok"
    seconds = sum(epoch.seconds for epoch in run.history)
    return RunResult(
        method=run.method,
        seed=run.seed,
        status=status,
        test_score=METRICS[run.recipe.data.metric].score(predicted, labels),
        validation_score=run.history[run.selected - 1].validation_score,
        selected_epoch=run.selected,
        steps_per_second=len(run.history) * run.batches / seconds,
        seconds=run.seconds + run.clock() - run.started,
        variant=variant,
        metric=run.recipe.data.metric,
        parameters=sum(p.numel() for p in run.model.parameters()),
        recipe=digest(run.recipe),
        environment=place,
        history=run.history,
    )


def _finalize(loggers: Sequence[Logger], status: str) -> None:
    for logger in loggers:
        logger.finalize(status)
