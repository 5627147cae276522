"""One training run on Lightning Fabric, from recipe, method and seed to a result."""

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from bisam import SharpnessAware
from bisam.functional import zero_one_loss

from .data import Source, load_splits
from .fabric import Fabric, Logger, TensorBoardLogger
from .loop import Loop
from .method import Method
from .models import build_model
from .recipe import Recipe
from .result import Epoch, RunResult, Status

__all__ = ["build_fabric", "build_optimizer", "train"]


def build_optimizer(name: str, recipe: Recipe, model: nn.Module, steps: int) -> SharpnessAware:
    """Build SGD, and around it the method of that name, for a training of so many steps."""
    t, s = recipe.train, recipe.sharpness
    method = Method(name, s.options)
    return method.build(
        torch.optim.SGD(model.parameters(), lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay),
        model=model,
        rho=method.radius(s.rho, s.radii),
        descent=nn.CrossEntropyLoss(label_smoothing=t.label_smoothing),
        steps=steps,
        epochs=t.epochs,
        mu=s.mu,
        alpha=s.alpha,
    )


def train(
    recipe: Recipe,
    method: str,
    seed: int,
    *,
    data_dir: Path | None = None,
    log_dir: Path | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> RunResult:
    """Train once; initial weights, split, noise and data order depend on the seed alone, so methods are paired.

    The epoch to test is chosen on validation, and the test set is read once, at the end. A run whose loss is no
    longer finite stops there as ``diverged``; one that ends no better than always guessing the commonest class is
    ``collapsed``. Both are scored as they are.
    """
    started = time.perf_counter()
    fabric = build_fabric(recipe, log_dir)
    splits = load_splits(recipe.data, data_dir, seed)
    torch.manual_seed(seed)
    model = build_model(recipe.model, splits.shape, splits.classes)
    steps = math.ceil(len(splits.train) / recipe.train.batch_size)
    opt = build_optimizer(method, recipe, model, recipe.train.epochs * steps)
    net, stepper = fabric.setup(model, opt)
    data, validation = splits.train.to(fabric.device), splits.validation.to(fabric.device)
    loop = Loop(
        fabric, net, opt, stepper, Method(method, recipe.sharpness.options), recipe.train, recipe.train.epochs * steps
    )

    history: list[Epoch] = []
    chosen, selected = copy.deepcopy(model.state_dict()), 0
    training = 0.0
    status: Status = "ok"
    for number in range(1, recipe.train.epochs + 1):
        net.train()
        began = time.perf_counter()
        loss = loop.epoch(data.shuffled(recipe.train.batch_size, seed, number))
        training += time.perf_counter() - began
        history.append(Epoch(number, loss, _accuracy(net, validation)))
        fabric.log_dict({"train_loss": loss, "validation_score": history[-1].validation_score}, step=number)
        progress(history[-1])
        best = max(e.validation_score for e in history[:-1]) if number > 1 else -1.0
        if recipe.train.select == "last" or history[-1].validation_score > best or not math.isfinite(loss):
            chosen, selected = copy.deepcopy(model.state_dict()), number
        if not math.isfinite(loss):
            status = "diverged"
            break
    model.load_state_dict(chosen)
    test = splits.test.to(fabric.device)
    accuracy = _accuracy(net, test)
    commonest = test.labels.bincount().max().item() / len(test)
    if status == "ok" and accuracy < 1.2 * commonest:
        status = "collapsed"
    fabric.log_dict({"test_score": accuracy}, step=selected)
    for logger in fabric.loggers:
        logger.finalize("success")
    return RunResult(
        method=method,
        seed=seed,
        status=status,
        test_score=accuracy,
        validation_score=history[selected - 1].validation_score,
        selected_epoch=selected,
        steps_per_second=len(history) * steps / training,
        seconds=time.perf_counter() - started,
        history=history,
    )


def build_fabric(recipe: Recipe, log_dir: Path | None) -> Fabric:
    """Launch Fabric as the recipe says, with TensorBoard logs in ``log_dir`` if there is one."""
    loggers: list[Logger] = [] if log_dir is None else [TensorBoardLogger(log_dir, name="", version="tensorboard")]
    with _quiet():
        fabric = Fabric(
            accelerator=recipe.engine.accelerator,
            strategy=recipe.engine.strategy,
            precision=recipe.engine.precision,
            devices=1,
            loggers=loggers,
        )
        fabric.launch()
    return fabric


@torch.no_grad()
def _accuracy(net: nn.Module, source: Source) -> float:
    net.eval()
    wrong = torch.stack([zero_one_loss(net(part.x), part.y, reduction="sum") for part in source.in_order()]).sum()
    return 1 - float(wrong) / len(source)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
