"""The training loop: a batch's gradient by the method's passes, one step, and what follows the schedule."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from bisam import RhoScheduler, SharpnessAware
from bisam.loops import micro_batches

from .data import Images
from .fabric import Fabric
from .method import Method

__all__ = ["Loop"]


class Loop:
    """Trains a network along a cosine.

    Args:
        fabric: the engine.
        net: the network, as ``fabric.setup`` returned it.
        opt: the optimizer itself, which has the passes.
        stepper: the optimizer as ``fabric.setup`` returned it, which steps.
        method: which loop ``opt`` is to be used in.
        steps: length of the training.
    """

    def __init__(
        self, fabric: Fabric, net: nn.Module, opt: SharpnessAware, stepper: Any, method: Method, steps: int
    ) -> None:
        self.fabric, self.net, self.opt, self.stepper = fabric, net, opt, stepper
        self.parts, self.choose = method.micro_batches, method.sharpest_samples
        self.schedule = CosineAnnealingLR(opt, T_max=steps)
        self.radius = RhoScheduler(opt) if method.follows_learning_rate else None

    def epoch(self, batches: Iterator[Images]) -> float:
        """Take a step a batch and return the mean of the descent losses, at w + eps."""
        losses = []
        for batch in batches:
            losses.append(self._backward(batch))
            self.stepper.step()
            self.stepper.zero_grad()
            self.schedule.step()
            if self.radius is not None:
                self.radius.step()
        return float(torch.stack(losses).mean())

    def _backward(self, batch: Images) -> Tensor:
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
