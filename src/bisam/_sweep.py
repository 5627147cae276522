"""Many radii at the same weights: what each makes of the gradient, and everything put back afterwards."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ._keep import Buffers, Kept, RandomState
from .optimizer import SharpnessAware
from .scene import STEPS, Run, Scene
from .vector import Vector

__all__ = ["Radius", "Sweep", "untouched"]


@dataclass(frozen=True)
class Radius:
    """What one radius does, averaged over the batches.

    Attributes:
        rho: the radius, of the param group with the largest one.
        norm: l2 norm of the perturbation, whatever the geometry.
        loss: the descent objective at w.
        perturbed_loss: the same at w + eps, on the batch that was climbed.
        cosine: of g_s and g, the descent gradients at w + eps and at w, on the batch that was climbed.
        unseen: of g_s and the gradients at w of the other batches; NaN where there is one batch alone.
        shrink: of w and g_s; where it is positive, descent shrinks the weights (docs/collapse.md, "Why a run can
            collapse").
    """

    rho: float
    norm: float
    loss: float
    perturbed_loss: float
    cosine: float
    unseen: float
    shrink: float


class Sweep:
    """The passes at w, and those at w + eps; each starts from the buffers at hand and its batch's random state."""

    def __init__(
        self, opt: SharpnessAware, model: nn.Module, scene: Scene, kept: Kept, taken: Sequence[tuple[Any, Any]]
    ) -> None:
        self.estimator = opt.estimator
        self.model, self.scene, self.kept, self.taken = model, scene, kept, taken
        self.passes = 0
        self.cost_at_w = len(taken) * (1 if self.estimator.ascent is self.estimator.descent else 2)
        self._largest = max(group["rho"] for group in scene.groups)
        self._random: list[RandomState] = []
        self._losses: list[float] = []
        self._climbs: list[list[Tensor | None]] = []
        self._at_w: list[Vector] = []
        self._weights = _unit((param, param.detach()) for param in scene.params)

    def look_at_w(self) -> None:
        """Take the gradients at w: the one to climb along, and the one to compare with."""
        ascent, descent = self.estimator.ascent, self.estimator.descent
        for number in range(len(self.taken)):
            self._random.append(RandomState(self.scene.params))
            value = self._pass(number, ascent)
            self._climbs.append([None if p.grad is None else p.grad.clone() for p in self.scene.params])
            if ascent is not descent:
                value = self._pass(number, descent)
            if not math.isfinite(value):
                raise ValueError(f"the loss of batch {number} at the present weights is {value}: it must be finite")
            self._losses.append(value)
            self._at_w.append(self._gradient())

    def measure(self, rho: float) -> Radius:
        """Climb every batch by ``rho`` and see what is left of its gradient."""
        groups = [{**g, "rho": rho * (g["rho"] / self._largest)} for g in self.scene.groups]
        scene = replace(self.scene, groups=groups)
        rows = [self._at_perturbed(number, rho, scene) for number in range(len(self.taken))]
        columns = zip(*rows, strict=True)
        return Radius(rho, *(sum(column) / len(rows) for column in columns))

    def _at_perturbed(self, number: int, rho: float, scene: Scene) -> tuple[float, ...]:
        for param, grad in zip(scene.params, self._climbs[number], strict=True):
            param.grad = None if grad is None else grad.clone()  # the climb uses it up
        last = self.estimator._climb(scene, self.kept)
        if not last.perturbed:
            raise ValueError(
                f"the gradient to climb along is zero or not finite on batch {number}, so no radius moves anything"
            )
        value = self._pass(number, self.estimator.descent)
        gradient = self._gradient()
        if self.kept.weights is not None:
            with torch.no_grad():
                self.kept.weights.restore()
        others = [float(gradient.dot(g)) for i, g in enumerate(self._at_w) if i != number]
        unseen = sum(others) / len(others) if others else math.nan
        cosine, shrink = float(gradient.dot(self._at_w[number])), float(gradient.dot(self._weights))
        return last.norm, self._losses[number], value, cosine, unseen, shrink

    def _pass(self, number: int, objective: Callable[..., Tensor]) -> float:
        x, y = self.taken[number]
        self._random[number].rewind()
        if self.kept.buffers is not None:
            self.kept.buffers.restore()
        self.kept.carried.set_aside()
        torch.clear_autocast_cache()  # casts of the weights as they were in the pass before
        with torch.enable_grad():
            loss = objective(self.model(x), y)
            loss.backward()
        self.passes += 1
        return float(loss.detach())

    def _gradient(self) -> Vector:
        found = [(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in self.scene.params]
        if any(grad.layout != torch.strided for _, grad in found):
            raise ValueError("a gradient is sparse, and its angle is not taken: build the layer with sparse=False")
        return _unit(found)


def _unit(entries: Iterable[tuple[Tensor, Tensor]]) -> Vector:
    """Return a copy of length 1, whatever the magnitude; of zero, zero."""
    vector = Vector.of(entries).copy()
    for size in (Vector.peak, Vector.norm):
        length = size(vector)
        vector.mul_(1 / torch.where(length == 0, 1, length))
    return vector


@contextlib.contextmanager
def untouched(opt: SharpnessAware, model: nn.Module) -> Iterator[tuple[Scene, Kept]]:
    """Set everything aside that a sweep changes, and put it back however the sweep ends."""
    opt._settle("rho_range()")
    random = RandomState(model.parameters())
    scene = Scene(opt.param_groups, opt._labels, model, opt.memory, Run(), None)
    kept = Kept(scene.params, scene.others(), torch.clear_autocast_cache)
    kept.buffers = Buffers(model)
    step = opt.memory.step
    opt.memory.step = opt.param_groups[0][STEPS]
    try:
        yield scene, kept
    finally:
        opt.memory.discard()
        opt.memory.step = step
        kept.put_back()
        random.rewind()
