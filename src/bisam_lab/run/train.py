"""A whole run: from a recipe, a method and a seed to a result. It continues from its last checkpoint."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..recipe import Recipe
from ..registry.metrics import METRICS
from .base_optimizer import stale_statistics
from .checkpoint import CheckpointError, Checkpoints
from .environment import environment
from .evaluation import collapsed, predictions
from .fabric import Logger
from .logs import WandbLogger, build_loggers, logged
from .observer import Observer
from .result import Run, RunResult, Status
from .resumable import Training

__all__ = ["train"]


def train(
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
    wandb: str | None = None,
) -> RunResult:
    """Train once. Validation chooses the epoch to test. The test set is read once, at the end.

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
        wandb: project of Weights & Biases to log to in addition; it needs a folder.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
        Stopped: the observer stopped the run; the same call continues it.
        CheckpointError: the folder holds the checkpoint of another run.
    """
    observer = observer or Observer()
    training = Training(recipe, method, seed, data_dir)
    place = environment(training.fabric.device)
    if (warning := stale_statistics(training.opt.base, training.model)) is not None:
        observer.note(warning)
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", observer.note)
    if checkpoints is not None:
        _resume(training, checkpoints, observer)
    outputs = _loggers(training, variant, folder, wandb)
    try:
        while not training.ended:
            epoch = training.epoch(observer, checkpoints, every)
            for logger in outputs:
                logger.log_metrics(logged(epoch), epoch.epoch)
            observer.epoch(epoch)
        if checkpoints is not None and keep:
            training.save(checkpoints)
        result = _result(training, variant, place)
        for logger in outputs:
            logger.log_metrics({"test_score": result.test_score}, result.selected_epoch)
    except BaseException:
        _finalize(outputs, "failed")
        raise
    _finalize(outputs, "success")
    return result


def _resume(training: Training, checkpoints: Checkpoints, observer: Observer) -> None:
    """Continue from the last checkpoint, if there is one."""
    state = checkpoints.load()
    if state is None:
        return
    try:
        training.restore(state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoints.last}: {error}: choose another folder with --out") from None
    observer.note(f"goes on from epoch {len(training.history) + 1}, after {len(training.losses)} of its steps")


def _loggers(training: Training, variant: str, folder: Path | None, wandb: str | None) -> list[Logger]:
    if folder is None:
        return []
    loggers = build_loggers(folder, training.history)
    if wandb is not None:
        name = str(Run(variant, training.seed, training.method))
        loggers.append(WandbLogger(wandb, name, folder, training.recipe.model_dump(mode="json")))
    return loggers


def _result(training: Training, variant: str, place: dict[str, Any]) -> RunResult:
    training.model.load_state_dict(training.chosen)
    predicted, labels = predictions(training.steps.net, training.test.to(training.fabric.device)), training.test.labels
    status: Status = "diverged" if training.diverged else "collapsed" if collapsed(predicted, labels) else "ok"
    seconds = sum(epoch.seconds for epoch in training.history)
    return RunResult(
        method=training.method,
        seed=training.seed,
        status=status,
        test_score=METRICS[training.recipe.data.metric].score(predicted, labels),
        validation_score=training.history[training.selected - 1].validation_score,
        selected_epoch=training.selected,
        steps_per_second=len(training.history) * training.batches / seconds,
        seconds=training.seconds + time.perf_counter() - training.started,
        variant=variant,
        metric=training.recipe.data.metric,
        parameters=sum(p.numel() for p in training.model.parameters()),
        environment=place,
        history=training.history,
    )


def _finalize(loggers: Sequence[Logger], status: str) -> None:
    for logger in loggers:
        logger.finalize(status)
