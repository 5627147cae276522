"""The estimator: five choices that replace ``backward()``.

A sharpness-aware method does not change how weights are updated, it changes what the gradient is. This file is that
gradient; :mod:`bisam.optimizer` is its face as a ``torch.optim.Optimizer``.
"""

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._climb import Bucket, buckets_of, climb
from ._errors import not_negative
from ._foreach import Snapshot
from ._keep import Buffers, Kept, RandomState
from ._shards import place_gradients
from ._wrapped import Wrapped
from .cadence import Cadence, Decides
from .combine import Combine, Reuses, combine_, reuse_
from .direction import Direction
from .geometry import Geometry
from .passes import Last, Objective
from .scene import MOMENTS, STEPS, Scene, check_not_stepped
from .vector import Vector

__all__ = ["Estimator"]

Steps = Generator[Objective, None, None]


@dataclass(frozen=True)
class Estimator:
    """The choices of a method, and the gradient they make.

    Attributes:
        ascent: objective that the perturbation climbs.
        descent: objective whose gradient at w + eps is kept.
        direction: along what of the ascent gradient; None is the gradient.
        geometry: in which ball.
        cadence: on which steps.
        combine: what becomes the gradient; None is the one at w + eps.
        same_dropout: whether all passes of a step draw the same random numbers.
        third_pass: whether the descent objective's gradient at w, if needed and not at hand, has a pass of its own.
        sync_ascent: whether the workers climb one averaged gradient, rather than each its own.
    """

    ascent: Callable[..., Tensor]
    descent: Callable[..., Tensor]
    direction: Direction | None
    geometry: Geometry
    cadence: Cadence
    combine: Combine | None
    same_dropout: bool
    third_pass: bool
    sync_ascent: bool

    def __post_init__(self) -> None:
        for name, choice in vars(self).items():
            if name in ("same_dropout", "third_pass", "sync_ascent"):
                if type(choice) is not bool:
                    raise TypeError(f"{name}={choice!r} must be True or False")
                continue
            unset = choice is None if name in ("direction", "combine") else name == "ascent" and choice is self.descent
            if not unset and (not callable(choice) or isinstance(choice, type)):
                raise TypeError(f"{name}={choice!r} must be an object that can be called, not a name or a class")
        if len(set(self.memory)) < len(self.memory):
            raise ValueError(f"two choices remember vectors of one name, {self.memory}: leave out one of them")
        if self._looks_at_w and self._foreign and not self.third_pass:
            what = f"combine={self.combine!r}" if self.combine is not None else f"cadence={self.cadence!r}"
            raise ValueError(
                f"{what} needs the gradient of the descent objective at w, but ascent={self.ascent!r} is another "
                "objective: pass third_pass=True to compute both, or leave out ascent="
            )

    @property
    def _foreign(self) -> bool:
        return self.ascent is not self.descent

    @property
    def _looks_at_w(self) -> bool:
        """Whether the descent objective's gradient at w takes part in the result."""
        return self.combine is not None or isinstance(self.cadence, Decides)

    @property
    def memory(self) -> tuple[str, ...]:
        """Names of the vectors that the choices remember."""
        return tuple(name for choice in vars(self).values() for name in getattr(choice, "memory", ()))

    @property
    def needs_scale(self) -> bool:
        """Whether the result depends on the scale of the losses, which ``passes(grad_scale=)`` then tells."""
        return any(getattr(choice, "needs_scale", False) for choice in vars(self).values())

    @property
    def averages_ascent(self) -> bool:
        """Whether workers climb one averaged gradient: asked for, or because what they keep of it must agree."""
        return self.sync_ascent or bool(self.memory) or (self._looks_at_w and not self._foreign)

    def passes(self, scene: Scene) -> Steps:
        """Yield the objective of each pass and leave the gradient in ``p.grad``."""
        radii = [not_negative("rho", group["rho"]) for group in scene.groups]
        if self._foreign and any(group.get("maximize") for group in scene.groups):
            raise ValueError(
                f"maximize=True turns the descent objective around, and what ascent={self.ascent!r} should then do is "
                "open: minimise the negative objective instead, or leave out ascent="
            )
        wrapped = Wrapped(scene.model)
        wrapped.check_sharded()
        if self._looks_at_w and not wrapped.averages:
            raise RuntimeError(
                "this method combines or judges averaged gradients, and under no_sync() each worker has its own, so "
                "the workers would drift apart: call passes() outside of no_sync(), also while accumulating"
            )
        scene.memory.step = scene.groups[0][STEPS]
        if any(radii) and self.cadence(scene.memory.step):
            yield from self._kept(scene, wrapped, self._sharp)
        elif any(radii) and isinstance(self.combine, Reuses):
            yield from self._kept(scene, wrapped, self._reused)
        else:
            yield from self._plain(scene)
        scene.memory.commit()
        scene.run.counts = True

    def _plain(self, scene: Scene) -> Steps:
        scene.run.last = Last()
        kept = Kept([p for group in scene.groups for p in group["params"]], [], lambda: None)
        try:
            yield from self._pass(0, self.descent, scene)
            kept.finished = True
        finally:
            kept.put_back()

    def _kept(self, scene: Scene, wrapped: Wrapped, steps: Callable[[Scene, Wrapped, Kept], Steps]) -> Steps:
        """Run ``steps`` with nothing carried, and put everything back after them."""
        kept = Kept(scene.params, scene.others(), wrapped.refresh)
        if self.same_dropout:
            kept.random = RandomState(scene.params)
        run = scene.run
        run.kept, moments, finished = kept, run.moments, False
        try:
            kept.carried.set_aside()
            yield from steps(scene, wrapped, kept)
            finished = True
        finally:
            run.kept, kept.finished = None, finished
            if not finished:
                run.moments = moments
                scene.memory.discard()
            kept.put_back()

    def _reused(self, scene: Scene, wrapped: Wrapped, kept: Kept) -> Steps:
        """One pass, whose gradient a combination changes."""
        scene.run.last = Last()
        yield from self._pass(0, self.descent, scene)
        self._stay(scene, kept)

    @torch.no_grad()
    def _stay(self, scene: Scene, kept: Kept) -> None:
        """Make do with the gradient at w, changed by a combination that has something to add to it."""
        if isinstance(self.combine, Reuses):
            reuse_(self.combine, _gradients(scene.params), scene.memory)
        kept.carried.add_gained()

    def _sharp(self, scene: Scene, wrapped: Wrapped, kept: Kept) -> Steps:
        """The passes at w, the climb, the pass at w + eps."""
        at_w, index = None, 0
        looks = self._looks_at_w
        if looks and self._foreign:
            yield from self._pass(0, self.descent, scene, is_ascent=True)
            at_w, index = self._look(scene), 1
            if at_w is None:
                self._stay(scene, kept)
                return
            kept.buffers = _buffers(scene.model)
            kept.carried.set_aside()
            kept.rewind()
        with wrapped.averaging(self.averages_ascent):
            ascent = yield from self._pass(index, self.ascent, scene, is_ascent=True)
        if looks and not self._foreign:
            at_w = self._look(scene)
            if at_w is None:
                self._stay(scene, kept)
                return
        kept.buffers = kept.buffers or _buffers(scene.model)
        scene.run.last = self._climb(scene, kept)
        scene.run.last.record(ascent)
        wrapped.refresh()
        kept.carried.give_back()
        if self.combine is not None:
            kept.carried.set_aside()
        kept.rewind()
        yield from self._pass(index + 1, self.descent, scene)
        if self.combine is not None and at_w is not None:
            self._combine(at_w, scene)
            kept.carried.add_gained()

    def _pass(
        self, index: int, loss: Callable[..., Tensor], scene: Scene, *, is_ascent: bool = False
    ) -> Generator[Objective, None, Objective]:
        run = scene.run
        run.objective = objective = Objective(index, loss, is_ascent=is_ascent, must_be_called=self._foreign)
        versions = [p._version for p in scene.params]
        try:
            yield objective
            objective.finish()
            check_not_stepped(scene, versions)
        finally:
            objective.expire()
            run.objective = None
        return objective

    @torch.no_grad()
    def _look(self, scene: Scene) -> Vector | None:
        """Return the gradient at w, a copy where it is combined; None where the cadence decides to leave it at that."""
        at_w = _gradients(scene.params)
        if isinstance(self.cadence, Decides):
            scale = scene.scale()
            length = float(at_w.norm() if scale is None else at_w.norm() / scale)  # the host waits: it must decide
            moments = scene.groups[0][MOMENTS]
            perturb, scene.run.moments = self.cadence.decide(scene.memory.step, length**2, moments)
            if not perturb:
                scene.run.last = Last()
                return None
        return at_w if self.combine is None else at_w.copy()

    @torch.no_grad()
    def _climb(self, scene: Scene, kept: Kept) -> Last:
        """Move the weights to w + eps, using up the gradients."""
        buckets = buckets_of(scene.groups, scene.labels)
        if not buckets:
            return Last()
        if not scene.run.warned:
            scene.run.warned = _warn_of_coarse_weights(buckets)
        scale = scene.scale()
        if self.needs_scale and scale is not None:
            Vector(buckets).mul_(1 / scale)
        if self.direction is not None:
            self.direction(Vector(buckets), scene.memory)
        balls = self.geometry(buckets, scene.memory)
        left = [(bucket, ball) for bucket, ball in zip(buckets, balls, strict=True) if bucket.params]
        if not left:
            return Last()
        kept.weights = Snapshot(weight for bucket, _ in left for weight in bucket.weights)
        norm, perturbed = climb([bucket for bucket, _ in left], [ball for _, ball in left])
        torch.clear_autocast_cache()  # or the low-precision weights cached in the first pass would hide eps
        return Last(norm, perturbed)

    @torch.no_grad()
    def _combine(self, at_w: Vector, scene: Scene) -> None:
        """Combine the two gradients where there are two; a lone one stays as it is."""
        perturbed = scene.run.last.at_perturbed
        if self.combine is None or perturbed is None:
            return
        at_w = at_w.only({param for param in at_w.params if param.grad is not None})
        place_gradients(at_w.params)
        combine_(self.combine, at_w, at_w.gradients(), perturbed, scene.memory)


def _gradients(params: Sequence[Tensor]) -> Vector:
    """Return the gradients that there are, shared."""
    place_gradients(params)
    found = [(param, param.grad) for param in params if param.grad is not None]
    if any(grad.layout != torch.strided for _, grad in found):
        raise ValueError("combine= and adaptive cadences need dense gradients: build the layer with sparse=False")
    return Vector.of(found)


def _buffers(model: nn.Module | None) -> Buffers | None:
    return None if model is None else Buffers(model)


def _warn_of_coarse_weights(buckets: Sequence[Bucket]) -> bool:
    coarse = {bucket.weights[0].dtype for bucket in buckets} & {torch.bfloat16, torch.float16}
    if coarse:
        warnings.warn(
            f"weights in {', '.join(sorted(map(str, coarse)))} round small perturbations away: "
            "compare opt.last.norm with rho, and prefer float32 weights under torch.autocast",
            stacklevel=6,
        )
    return bool(coarse)
