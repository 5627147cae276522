"""A training that can stop after any step, be saved, and continue as if it had not stopped."""

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.examples import count_batches
from ..errors import one_line, some
from ..recipe import Recipe, differences, settings
from ..registry.methods import Method
from ..registry.metrics import METRICS
from .asking import Asking, Clock
from .checkpoint import CheckpointError, Checkpoints, check_kinds, random_state, set_random_state, write
from .evaluation import predictions
from .fabric import build_fabric
from .observer import Observer, Stopped
from .optimizer import build_optimizer
from .result import Epoch, check_order, read_epoch
from .seen import Seen
from .setup import load_examples_and_model
from .steps import Steps

__all__ = ["Training"]


class Training:
    """One run's network, optimizer, data and progress.

    Initial weights, split, noise, data order and augmentation depend only on the seed. So the runs of all methods with
    one seed are paired.

    Args:
        recipe: what to train, without variants.
        method: its name.
        seed: of all random numbers.
        data_dir: folder of the data sets.
        clock: tells the seconds that the run has taken; several runs at once share the time.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: str,
        seed: int,
        data_dir: Path | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.recipe, self.method, self.seed, self.clock = recipe, method, seed, clock
        self.fabric = build_fabric(recipe.engine)
        splits, self.model = load_examples_and_model(recipe, data_dir, seed)
        self.about_data = splits.note
        self.batches = count_batches(len(splits.train), recipe.train.batch_size)
        steps = self.batches * recipe.train.epochs
        self.opt = build_optimizer(method, recipe, self.model, steps, splits.classes)
        self.steps = Steps(
            self.fabric, self.model, self.opt, Method(method, recipe.sharpness.options), recipe.train, steps
        )
        self.train, self.validation = (source.to(self.fabric.device) for source in (splits.train, splits.validation))
        self.test = splits.test  # moved to the device when it is read, once
        self.history: list[Epoch] = []
        self._exported = 0
        self.chosen = _copy(self.model)
        self.losses: list[Tensor] = []  # of the current epoch
        self.seconds = self.epoch_seconds = 0.0
        self.started, self.saved = clock(), time.perf_counter()

    @property
    def diverged(self) -> bool:
        """Whether the loss of the last epoch is not finite."""
        return bool(self.history) and not math.isfinite(self.history[-1].train_loss)

    @property
    def selected(self) -> int:
        """The epoch whose weights are tested: the first with the best score, or the last. 0 before the first ends."""
        if self.recipe.train.select == "last" or self.diverged:
            return len(self.history)
        return self._best

    @property
    def ended(self) -> bool:
        """Whether the training is finished."""
        t, epochs = self.recipe.train, len(self.history)
        return self.diverged or epochs == t.epochs or (t.patience is not None and epochs - self._best >= t.patience)

    @property
    def _best(self) -> int:
        return max(range(1, len(self.history) + 1), key=lambda i: self.history[i - 1].validation_score, default=0)

    def epoch(self, observer: Observer, checkpoints: Checkpoints | None, every: float) -> Asking[Epoch]:
        """Train to the end of the current epoch, score it on validation, and return its numbers.

        Args:
            observer: is called after each step, and can stop the training.
            checkpoints: where the state is saved; None saves nothing.
            every: seconds between two checkpoints.

        Raises:
            Stopped: the observer stopped the training; its state is saved.
        """
        number = len(self.history) + 1
        yield from self._train(number, observer, checkpoints, every)
        predicted = yield from self._validate(observer, checkpoints)
        result = Epoch(
            epoch=number,
            train_loss=float(torch.stack(self.losses).mean()),
            validation_score=METRICS[self.recipe.data.metric].score(predicted, self.validation.labels),
            learning_rate=self.opt.param_groups[0]["lr"],
            seconds=self.epoch_seconds,
            loss_at=self.steps.loss_at,
            passes=self.steps.passes / self.batches,
            steps=self.batches,
            rho=float(self.opt.param_groups[0]["rho"]),
            **self.steps.seen.read(self.batches, METRICS[self.recipe.data.metric].score),
        )
        self.history.append(result)
        self.losses, self.epoch_seconds, self.steps.passes, self.steps.seen = [], 0.0, 0.0, Seen()
        if self.selected == number:
            self.chosen = _copy(self.model)
        return result

    def _train(self, number: int, observer: Observer, checkpoints: Checkpoints | None, every: float) -> Asking[None]:
        """Take the steps that are left of the epoch."""
        batches = self.train.shuffled(self.recipe.train.batch_size, self.seed, number, start=len(self.losses))
        began = self.clock()
        for done, batch in enumerate(batches):
            if done == 0:
                self.steps.begin()
            self.losses.append((yield from self.steps.step(batch)))
            observer.step(number, len(self.losses), self.batches)
            stop = observer.stopping()  # asked once a step: a signal may arrive between two questions
            if checkpoints is not None and (stop or time.perf_counter() - self.saved >= every):
                self.epoch_seconds += self.clock() - began
                self.save(checkpoints)
                began = self.clock()
            if stop:
                raise Stopped
        self.epoch_seconds += self.clock() - began

    def _validate(self, observer: Observer, checkpoints: Checkpoints | None) -> Asking[Tensor]:
        """Return the predicted classes (N,) of the validation examples."""

        def stop_if_asked() -> None:
            if observer.stopping():
                if checkpoints is not None:
                    self.save(checkpoints)
                raise Stopped

        self.opt.eval()
        return (yield from predictions(self.steps.net, self.validation, self.fabric, stop_if_asked))

    def save(self, checkpoints: Checkpoints) -> None:
        """Save the state after the last step, and the weights of the selected epoch if they are new."""
        now = self.clock()
        self.seconds, self.started = self.seconds + now - self.started, now
        checkpoints.save(self.state())
        if self.selected not in (0, self._exported):
            self._export(checkpoints.best, self.chosen, self.selected)
            self._exported = self.selected
        self.saved = time.perf_counter()

    def keep(self, checkpoints: Checkpoints) -> None:
        """Keep the present weights, after the last whole epoch, for other programs."""
        self._export(checkpoints.of_epoch(len(self.history)), self.model.state_dict(), len(self.history))

    def _export(self, path: Path, weights: Mapping[str, Any], epoch: int) -> None:
        there = {key: value.detach().cpu() for key, value in weights.items()}
        write(path, {"model": there, "epoch": epoch, "recipe": self.recipe.model_dump(mode="json")})

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, as tensors and plain values."""
        fresh = self.selected == len(self.history) and not self.losses  # the chosen weights are the current ones
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "method": self.method,
            "seed": self.seed,
            "model": self.model.state_dict(),
            "optimizer": self.opt.state_dict(),
            "schedule": self.steps.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": random_state(self.fabric.device),
            "history": [vars(epoch) for epoch in self.history],
            "chosen": None if fresh else self.chosen,
            "losses": torch.stack(self.losses).cpu() if self.losses else None,
            "epoch_seconds": self.epoch_seconds,
            "passes": self.steps.passes,
            "seen": self.steps.seen.state(),
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            CheckpointError: the state belongs to another recipe, method, seed or network.
        """
        mine = {"method": self.method, "seed": self.seed, **settings(self.recipe.model_dump(mode="json"))}
        if "method" not in state:
            raise CheckpointError("it holds weights alone, and no run to continue from")
        if not isinstance(state.get("recipe"), dict):
            raise CheckpointError("the checkpoint is damaged (it has no recipe)")
        there = {"method": state["method"], "seed": state.get("seed"), **settings(state["recipe"])}
        differing = [f"{key}={old!r} there, {new!r} now" for key, old, new in differences(there, mine)]
        if differing:
            raise CheckpointError(f"the checkpoint belongs to another run ({some(differing)})")
        try:
            self._check(state)
            self._restore(state)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = one_line(str(error))
            raise CheckpointError(f"the checkpoint does not fit the network or this version ({reason})") from error

    def _check(self, state: Mapping[str, Any]) -> None:
        """Check the kinds of values, before any of them is used.

        Raises:
            TypeError: a value is of another kind than the one that :meth:`state` returns.
            ValueError: the history is longer than the training, or in disorder.
        """
        history, epochs = [read_epoch(epoch) for epoch in state["history"]], self.recipe.train.epochs
        check_order(history)
        losses = state["losses"]
        if losses is not None and not (isinstance(losses, Tensor) and losses.dim() == 1):
            raise TypeError("losses are no vector")
        if len(history) > epochs or (losses is not None and (len(history) == epochs or len(losses) > self.batches)):
            raise ValueError(f"a history of {len(history)} epochs and more, where the recipe trains {epochs}")
        check_kinds("model", state["model"], self.model.state_dict())
        if state["chosen"] is not None:
            check_kinds("chosen", state["chosen"], self.model.state_dict())
        check_kinds("groups", state["optimizer"]["param_groups"], self.opt.state_dict()["param_groups"])
        check_kinds("schedule", state["schedule"], self.steps.schedule.state_dict())
        numbers = {"epoch_seconds": 0.0, "seconds": 0.0, "passes": 0.0}
        check_kinds("state", {"passes": 0.0, **state}, numbers)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.opt.load_state_dict(state["optimizer"])
        self.steps.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.history = [read_epoch(epoch) for epoch in state["history"]]
        self.chosen = _copy(self.model) if state["chosen"] is None else state["chosen"]
        self.losses = [] if state["losses"] is None else list(state["losses"].to(self.fabric.device))
        self.epoch_seconds, self.seconds = state["epoch_seconds"], state["seconds"]
        self.steps.passes = state.get("passes", math.nan)  # a run that an older version began does not know
        self.steps.seen = Seen.restored(state.get("seen"), self.fabric.device)
        set_random_state(state["random"], self.fabric.device)


def _copy(model: nn.Module) -> dict[str, Any]:
    """Return a copy of a model's state. ``copy.deepcopy`` would copy a whole storage that several models share."""
    state: dict[str, Any] = model.state_dict()
    return {key: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value) for key, value in state.items()}
