"""The steps of a training: the method's passes over a batch, one update, and the schedules."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bisam import RhoScheduler, SharpnessAware
from bisam.ascent import StoredAscent
from bisam.loops import micro_batches

from ..data import Examples
from ..recipe import TrainRecipe
from ..registry.methods import Method
from .asking import Asking, Backward, Forward, alone
from .fabric import Fabric, ModelParallelStrategy
from .learning_rate import learning_rate
from .seen import Loop, Seen
from .sharding import whole
from .team import Part, Team

__all__ = ["FORWARD", "Step", "Steps"]

#: Part of a forward-backward pass that a forward pass alone takes: backward multiplies twice where forward does once.
FORWARD = 1 / 3


class Steps:
    """Trains a network along the recipe's schedule.

    Args:
        fabric: the engine.
        model: the network.
        opt: its optimizer.
        method: says which loop ``opt`` needs: micro-batches (mSAM), a choice of samples (ESAM, a part of the batch).
        recipe: the learning rate's schedule, and clipping.
        total: steps of the whole training.
        record: whether ``seen`` is filled, which reads each gradient once more.
        team: the processes that take these steps together, each on its part of the batch; None: those of the engine.

    Attributes:
        net: the network as the engine runs it.
        schedule: of the learning rate.
        taken: steps that this object has taken itself.
        passes: forward-backward passes over a whole batch, of all steps since somebody set it to zero. A pass over a
            part of the batch counts as that part, a forward pass alone as :data:`FORWARD`.
        seen: what the steps of the epoch were like.
        one_loop: whether a step is one loop over ``opt.passes()`` on the whole batch, and the radius has no schedule.
        loss_at: where the yielded losses are taken: "w"; "w + eps" for methods whose one pass is there.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        opt: SharpnessAware,
        method: Method,
        recipe: TrainRecipe,
        total: int,
        *,
        record: bool = True,
        team: Team | None = None,
    ) -> None:
        self.fabric, self.model, self.opt, self.clip = fabric, model, opt, recipe.clip
        self.net, self._stepper = _set_up(fabric, model, opt)
        self.team = team or Team(fabric)
        self.schedule = learning_rate(opt, recipe, total)
        self._micro_batches, self._choose = method.micro_batches, method.choose_samples
        self._chosen_by_a_pass = method.sharpest_samples is not None
        self.loss_at = "w + eps" if isinstance(opt.estimator.ascent, StoredAscent) else "w"
        self._radius = RhoScheduler(opt) if method.follows_learning_rate else None
        self.taken, self.passes, self.seen, self._record = 0, 0.0, Seen(), record
        self.one_loop = self._micro_batches == 1 and self._choose is None and self._radius is None

    def take(self, batches: Iterable[Examples]) -> Iterator[Tensor]:
        """Take one step per batch, and yield its descent loss before the step, a scalar on the device."""
        for number, batch in enumerate(batches):
            if number == 0:
                self.begin()
            yield alone(self.step(batch))

    def begin(self) -> None:
        """Switch to training, once before the steps: each switch of a base with modes rounds its weights."""
        self.net.train()
        self.opt.train()

    def step(self, batch: Examples) -> Asking[Tensor]:
        """Take one step, asking for it and else for each of its passes; return the descent loss before it, a scalar."""
        taken: Tensor | None = yield Step(self, batch)
        return taken if taken is not None else (yield from self._step(batch))

    def count(self, passes: int) -> None:
        """Count a step that the driver has taken in this run's stead, with so many passes, and follow the schedule."""
        self.passes += passes
        self.opt._context.record.opened |= passes > 1  # or it would say at its end that it never perturbed
        self.opt.memory.commit_step()
        self.schedule.step()

    def _step(self, batch: Examples) -> Asking[Tensor]:
        loss = yield from self._backward(batch)
        self.taken += 1
        if self._record:
            self.seen.gradient_norms.append(self._gradient_norm())
        if self.clip is not None:
            self.fabric.clip_gradients(self.net, self._stepper, max_norm=self.clip, error_if_nonfinite=False)
        self._stepper.step()
        self._stepper.zero_grad()
        self.schedule.step()
        if self._radius is not None:
            self._radius.step()
        return loss

    def _backward(self, batch: Examples) -> Asking[Tensor]:
        """Compute the batch's gradient in ``p.grad``, and return its descent loss: this process's part of the mean."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        total = torch.zeros((), device=batch.y.device)
        part = self.team.part(len(batch))
        for x, y, share in micro_batches(self._micro_batches, batch.x[part.rows], batch.y[part.rows]):
            loop = Loop(self.loss_at == "w", self._choose is None)
            for loss in self.opt.passes(scaler):
                seen = (x, y) if self._choose is None else self._choose(loss, self.net, x, y)
                self._count(len(seen[0]) / len(x), share)
                output: Tensor = yield Forward(self.net, seen[0], self.fabric)
                value = loss(output, seen[1])
                if self._record:
                    plain = value if loss.is_ascent else self._plain(value, output, seen[1])
                    loop.take(output, seen[1], plain, is_ascent=loss.is_ascent)
                yield Backward(share * self._weight(part, is_ascent=loss.is_ascent) * value, self.fabric)
            if self._record:
                self.seen.loop(self.opt.last, loop, part.share, averaged=self.team.size > 1 and self.averages)
            at_w = self.opt.last.loss
            total += share * (value.detach() if at_w is None else at_w)
        return total if part.share == 1 else part.share * total

    def _weight(self, part: Part, *, is_ascent: bool) -> float:
        """Return what the mean loss of this process's part counts.

        The engine averages gradients over the processes with equal weights, and their parts need not be of one size.
        The gradient that a process climbs alone is that of its own mean.
        """
        return 1.0 if is_ascent and not self.averages else self.team.size * part.share

    @property
    def averages(self) -> bool:
        """Whether all processes climb one averaged gradient."""
        return self.opt.estimator.averages_ascent or isinstance(self.fabric.strategy, ModelParallelStrategy)

    def _plain(self, value: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Return the descent loss of an output whose objective has returned ``value``, which may be another number."""
        plain = self.opt.estimator.plain_descent
        return value if plain is self.opt.estimator.descent else plain(output.detach(), labels)

    def _gradient_norm(self) -> Tensor:
        """Return the norm of the gradient that the optimizer is about to get: 0-dim, on the device."""
        gradients = [p.grad for group in self.opt.param_groups for p in group["params"] if p.grad is not None]
        norm: Tensor = whole(nn.utils.get_total_norm(gradients))
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return norm if scaler is None else norm / scaler.scale(torch.ones_like(norm))

    def _count(self, part: float, share: float) -> None:
        """Count a pass over a part of a micro-batch, which holds a share of the batch."""
        chosen = FORWARD if self._chosen_by_a_pass and part < 1 else 0.0
        self.passes += share * (part + chosen)


def _set_up(fabric: Fabric, model: nn.Module, opt: SharpnessAware) -> tuple[nn.Module, Any]:
    """Hand network and optimizer to the engine, and tell the optimizer what wraps the network."""
    if isinstance(fabric.strategy, ModelParallelStrategy):  # whose shards the optimizer already holds
        return fabric.setup_module(model), fabric.setup_optimizers(opt)
    net, stepper = fabric.setup(model, opt)
    if fabric.world_size > 1:
        opt.model = net
    return net, stepper


@dataclass(frozen=True, eq=False)
class Step:
    """Asks for a whole step. The answer is the descent loss before it, or None: then the run takes it itself.

    Attributes:
        steps: of the run.
        batch: the examples.
    """

    steps: Steps
    batch: Examples

    def answer(self) -> None:
        """Let the run take its step."""
