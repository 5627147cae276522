"""A whole run: from a recipe, a method and a seed to a result. It continues from its last checkpoint."""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeAlias

from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from ..recipe import Recipe, digest
from ..registry.metrics import METRICS
from .asking import Asking, Clock, answered
from .base_optimizer import stale_statistics
from .checkpoint import Checkpoints
from .environment import environment
from .evaluation import collapsed, predictions
from .fabric import Logger
from .logs import WandbLogger, build_loggers, logged
from .observer import Observer
from .result import Run, RunResult, Status
from .resumable import Training
from .setup import alone_in_norms
from .signatures import Signature, found

__all__ = ["Measuring", "train", "training"]

#: Measures a run that has ended: quantities by measure.
Measuring: TypeAlias = Callable[[Training], dict[str, dict[str, float]]]


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
    measure: Measuring | None = None,
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
        measure: is called with the run that has ended, its network holding the tested weights, and returns what the
            result has as ``measures``.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
        Stopped: the observer stopped the run; the same call continues it.
        CheckpointError: the folder holds the checkpoint of another run.
    """
    observer = observer or Observer()
    run = Training(recipe, method, seed, data_dir, clock)
    place = environment(run.fabric.device) | ({} if stack == 1 else {"stack": stack}) | _spread(run)
    if said := alone_in_norms(recipe.engine, run.fabric.device):
        observer.note(said)
    if run.about_data:
        observer.about_data(run.about_data)
    if (warning := stale_statistics(run.opt.base, run.model)) is not None:
        observer.note(warning)
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", observer.note)
    if checkpoints is not None:
        _resume(run, checkpoints, observer)
    outputs = _loggers(run, variant, folder, wandb)
    told = set(found(run.history))
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
            told |= _tell_signatures(run, observer, told)
        if checkpoints is not None and keep:
            run.save(checkpoints)
        result = yield from _result(run, variant, place, measure)
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
    if not run.resume(checkpoints):
        return
    observer.note(f"goes on from epoch {len(run.history) + 1}, after {len(run.losses)} of its steps")
    if run.began_with != run.team.size:
        observer.note(_other_number(run))


def _other_number(run: Training) -> str:
    """Say what it means that a run goes on in another number of processes than it was saved in."""
    reasons = []
    if not run.began_averaged or not (run.team.size == 1 or run.steps.averages):
        reasons.append("each climbs the gradient of its own part of a batch (m-sharpness)")
    if any(isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm) for module in run.model.modules()):
        reasons.append("BatchNorm takes its statistics of each part")
    said = f"it was saved by {run.began_with} process{'es' * (run.began_with > 1)}, and goes on in {run.team.size}: "
    return said + (f"not the same training, for {', and '.join(reasons)}" if reasons else "the same but for rounding")


def _spread(run: Training) -> dict[str, Any]:
    """Return how many processes a run has, for its environment, where there are several."""
    return {} if run.team.size == 1 else {"processes": run.team.size}


def _tell_signatures(run: Training, observer: Observer, told: AbstractSet[Signature]) -> set[Signature]:
    """Tell the observer of the failure signatures that the run shows and of which it has not been told yet."""
    fresh = [one for one in found(run.history) if one not in told]
    for one in fresh:
        observer.signature(one, len(run.history))
    return set(fresh)


def _loggers(run: Training, variant: str, folder: Path | None, wandb: str | None) -> list[Logger]:
    if folder is None or not run.team.first:
        return []
    loggers = build_loggers(folder, run.history)
    if wandb is not None:
        name = str(Run(variant, run.seed, run.method))
        loggers.append(WandbLogger(wandb, name, folder, run.recipe.model_dump(mode="json")))
    return loggers


def _result(run: Training, variant: str, place: dict[str, Any], measure: Measuring | None) -> Asking[RunResult]:
    run.model.load_state_dict(run.chosen)
    labels, test = run.test.labels, run.test.to(run.fabric.device)
    predicted = yield from predictions(run.steps.net, run.mine(test), run.fabric, team=run.team)
    status: Status = "diverged" if run.diverged else "collapsed" if collapsed(predicted, labels) else "ok"
    seconds, taken = sum(epoch.seconds for epoch in run.history), run.seconds + run.clock() - run.started
    measures = {} if measure is None or not run.team.first else measure(run)
    run.team.wait()
    return RunResult(
        method=run.method,
        seed=run.seed,
        status=status,
        test_score=METRICS[run.recipe.data.metric].score(predicted, labels),
        validation_score=run.history[run.selected - 1].validation_score,
        selected_epoch=run.selected,
        steps_per_second=len(run.history) * run.batches / seconds,
        seconds=taken,
        variant=variant,
        metric=run.recipe.data.metric,
        parameters=sum(p.numel() for p in run.model.parameters()),
        recipe=digest(run.recipe),
        environment=place,
        history=run.history,
        measures=measures,
    )


def _finalize(loggers: Sequence[Logger], status: str) -> None:
    for logger in loggers:
        logger.finalize(status)
