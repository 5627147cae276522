"""The training loop: a batch's gradient by the method's passes, one step, and what follows the schedule."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bisam import RhoScheduler, SharpnessAware
from bisam.loops import micro_batches

from .data import Examples
from .fabric import Fabric
from .method import Method
from .recipe import TrainRecipe
from .schedule import learning_rate

__all__ = ["Loop"]


class Loop:
    """Trains a network along the recipe's schedule.

    Args:
        fabric: the engine.
        net: the network, as ``fabric.setup`` returned it.
        opt: the optimizer itself, which has the passes.
        stepper: the optimizer as ``fabric.setup`` returned it, which steps.
        method: which loop ``opt`` is to be used in.
        recipe: schedule and clipping.
        steps: length of the training.
    """

    def __init__(
        self,
        fabric: Fabric,
        net: nn.Module,
        opt: SharpnessAware,
        stepper: Any,
        method: Method,
        recipe: TrainRecipe,
        steps: int,
    ) -> None:
        self.fabric, self.net, self.opt, self.stepper = fabric, net, opt, stepper
        self.parts, self.choose = method.micro_batches, method.sharpest_samples
        self.schedule = learning_rate(opt, recipe, steps)
        self.clip = recipe.clip
        self.radius = RhoScheduler(opt) if method.follows_learning_rate else None

    def steps(self, batches: Iterable[Examples]) -> Iterator[Tensor]:
        """Take a step a batch, and yield each one's descent loss, at w + eps, as it lies on the device."""
        self.net.train()
        for batch in batches:
            loss = self._backward(batch)
            if self.clip is not None:
                self.fabric.clip_gradients(self.net, self.stepper, max_norm=self.clip, error_if_nonfinite=False)
            self.stepper.step()
            self.stepper.zero_grad()
            self.schedule.step()
            if self.radius is not None:
                self.radius.step()
            yield loss

    def _backward(self, batch: Examples) -> Tensor:
        """Leave the batch's gradient in ``p.grad``, and return its descent loss."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        total = torch.zeros((), device=batch.y.device)
        for x, y, share in micro_batches(self.parts, batch.x, batch.y):
            for loss in self.opt.passes(scaler):
                seen = (x, y) if self.choose is None else self.choose(loss, self.net, x, y)
                value = share * loss(self.net(seen[0]), seen[1])
                self.fabric.backward(value)
            total += value.detach()
        return total
