"""The contestants: the base optimizer alone, and methods around it, each on a copy of one network."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bisam import SharpnessAware
from bisam.cadence import Cadence, Every, GradientCadence, Tail

from ..data import Examples
from ..data.examples import count_batches
from ..recipe import Recipe
from ..registry.methods import Method
from ..run.base_optimizer import base_arguments, build_base, set_training
from ..run.descent import descent_loss
from ..run.fabric import build_fabric
from ..run.learning_rate import learning_rate
from ..run.optimizer import build_optimizer
from ..run.place import refuse_several
from ..run.setup import load_examples_and_model
from ..run.steps import Steps
from .result import PassesPerStep

__all__ = ["Contestant", "Problem"]

#: Batches that are used in turn. They are loaded before: data are not a cost of the method.
BATCHES = 8
#: Steps in a cycle of a method that decides by itself which steps perturb.
UNDECIDED = 10
#: Steps of the learning rate's schedule: more than are timed, so that no step lies behind its end.
SCHEDULE = 10_000_000


@dataclass(frozen=True)
class Contestant:
    """A method, or the base optimizer, ready to take steps.

    Attributes:
        name: for the table.
        model: the network. Its forward calls are counted.
        run: takes one step per batch.
        cycle: steps after which every kind of step has been taken.
        expected: passes of a step by definition; None if unknown.
        peer: another package and its version; None for this one.
    """

    name: str
    model: nn.Module
    run: Callable[[Iterable[Examples]], None]
    cycle: int = 1
    expected: PassesPerStep | None = None
    peer: str | None = None


class Problem:
    """What all contestants have in common: engine, initial weights, batches, schedule.

    Args:
        recipe: network, data, batch size, precision and device.
        data_dir: folder of the data sets.
        seed: of weights and data.
    """

    def __init__(self, recipe: Recipe, data_dir: Path | None, seed: int = 0) -> None:
        refuse_several(recipe.engine, "bisam bench", "set engine.devices=1 and engine.nodes=1")
        self.recipe = recipe
        self.fabric = build_fabric(recipe.engine)
        splits, self.model = load_examples_and_model(recipe, data_dir, seed)
        self.classes = splits.classes
        self.steps = recipe.train.epochs * count_batches(len(splits.train), recipe.train.batch_size)
        source = splits.train.to(self.fabric.device)
        first = list(itertools.islice(source.shuffled(recipe.train.batch_size, seed, epoch=1), BATCHES))
        self.batches = [batch for batch in first if len(batch) == len(first[0])]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trainable weights, with their initial values."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def criterion(self) -> nn.Module:
        """The descent loss."""
        return descent_loss(self.recipe.train, self.classes)

    def base(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return the class and the arguments of the recipe's optimizer."""
        return base_arguments(self.recipe.train)

    def plain(self) -> Contestant:
        """Return the base optimizer in a plain loop, written without this library."""
        model = copy.deepcopy(self.model)
        optimizer = build_base(self.recipe.train, model)
        set_training(optimizer)
        net, stepper = self.fabric.setup(model, optimizer)
        schedule, criterion, clip = self.schedule(optimizer), self.criterion, self.recipe.train.clip

        def run(batches: Iterable[Examples]) -> None:
            net.train()
            for batch in batches:
                self.fabric.backward(criterion(net(batch.x), batch.y))
                if clip is not None:
                    self.fabric.clip_gradients(net, stepper, max_norm=clip, error_if_nonfinite=False)
                stepper.step()
                stepper.zero_grad()
                schedule.step()

        return Contestant(f"plain {self.recipe.train.optimizer}", model, run, expected=PassesPerStep(1, 1))

    def method(self, name: str, timed: int) -> Contestant:
        """Return a method of the laboratory, with the laboratory's steps.

        What has a course over the training runs through it in the ``timed`` steps: the first steps of an adaptive
        cadence (AE-SAM) are the cheap ones. A tail's steps are spread, so that each measurement has its share of them.
        """
        recipe, method = self.recipe, Method(name, self.recipe.sharpness.options)
        options = dict(method.options) | {
            part: {"total_steps": timed, **method.options.get(part, {})} for part in method.parts_with("total_steps")
        }
        recipe = recipe.model_copy(update={"sharpness": recipe.sharpness.model_copy(update={"options": options})})
        model = copy.deepcopy(self.model)
        opt = build_optimizer(name, recipe, model, self.steps, self.classes)
        if isinstance(tail := opt.estimator.cadence, Tail):
            opt.estimator = replace(opt.estimator, cadence=_Spread(tail.tail))
        steps = Steps(self.fabric, model, opt, method, recipe.train, SCHEDULE, record=False)

        def run(batches: Iterable[Examples]) -> None:
            for _ in steps.take(batches):
                pass

        return Contestant(name, model, run, _cycle(opt), _expected(method, opt))

    def schedule(self, optimizer: Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the recipe's schedule of the learning rate."""
        return learning_rate(optimizer, self.recipe.train, SCHEDULE)

    def closure(self, net: Callable[[Tensor], Tensor], optimizer: Optimizer, batch: Examples) -> Callable[[], Tensor]:
        """Return the closure of one batch, for peers."""
        criterion = self.criterion

        def call() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = criterion(net(batch.x), batch.y)
            self.fabric.backward(loss)
            return loss

        return call


class _Spread(Cadence):
    """Perturbs on a share of the steps, at equal distances."""

    def __init__(self, share: float) -> None:
        self.share = Fraction(share).limit_denominator(100)

    def __call__(self, step: int) -> bool:
        return math.floor((step + 1) * self.share) > math.floor(step * self.share)

    @property
    def fraction(self) -> float:
        return float(self.share)


def _cycle(opt: SharpnessAware) -> int:
    match opt.estimator.cadence:
        case Every(k=k):
            return k
        case _Spread(share=share):
            return share.denominator
        case GradientCadence():
            return UNDECIDED
    return 1


def _expected(method: Method, opt: SharpnessAware) -> PassesPerStep:
    """Return the passes of a mean step: 1 if it does not perturb, otherwise those at w and the last one.

    ESAM's last pass sees a part of the samples, chosen by a forward pass. The passes at w may see a part of the batch.
    """
    choices = opt.estimator
    if not any(group["rho"] for group in opt.param_groups):
        return PassesPerStep(1, 1)
    count = choices.passes_per_step
    chosen = method.sharpest_samples
    last, forward = (1.0, 0.0) if chosen is None or chosen.gamma == 1 else (chosen.gamma, 1.0)
    few = method.sub_batch
    sharp = (count.sharp - 1) * (1.0 if few is None else few.share) + last
    share = choices.cadence.fraction
    if share is None:
        return PassesPerStep(min(1.0, sharp), sharp, forward)
    mean = share * sharp + (1 - share) * count.plain
    return PassesPerStep(mean, mean, share * forward)
