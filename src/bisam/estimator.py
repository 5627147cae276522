"""The estimator: five choices that replace ``backward()``.

A sharpness-aware method does not change how weights are updated, it changes what the gradient is. This file is that
gradient; :mod:`bisam.optimizer` is its face as a ``torch.optim.Optimizer``.
"""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._errors import not_negative
from ._foreach import Snapshot, add, buckets_of, climb, copies, replace_unless
from ._keep import Buffers, CarriedGradients, RandomState
from .cadence import Cadence
from .combine import Combine
from .direction import Direction
from .geometry import Geometry
from .passes import Last, Objective, Passes

__all__ = ["STEPS", "Estimator", "Run"]

#: Steps taken, in every param group: saved, resumed and seen by whatever copies the groups.
STEPS = "sharpness_steps"


class Run:
    """What belongs to the running step; one object, because engines copy an optimizer's attributes."""

    def __init__(self) -> None:
        self.loop: weakref.ref[Passes] | None = None
        self.objective: Objective | None = None
        self.driving = False
        self.counts = False  # whether passes() has run since the last step
        self.last = Last()
        self.warned = False

    def live_loop(self) -> Passes | None:
        """Return the loop that has begun and not ended."""
        loop = self.loop() if self.loop is not None else None
        return loop if loop is not None and loop.live else None


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
        same_dropout: whether both passes draw the same random numbers.
    """

    ascent: Callable[..., Tensor]
    descent: Callable[..., Tensor]
    direction: Direction | None
    geometry: Geometry
    cadence: Cadence
    combine: Combine | None
    same_dropout: bool

    def __post_init__(self) -> None:
        for name, choice in vars(self).items():
            unset = choice is None if name in ("direction", "combine") else name == "ascent" and choice is self.descent
            if name != "same_dropout" and not unset and (not callable(choice) or isinstance(choice, type)):
                raise TypeError(f"{name}={choice!r} must be an object that can be called, not a name or a class")
        if self.combine is not None and self.ascent is not self.descent:
            raise ValueError(
                f"combine={self.combine!r} needs the gradient of the descent objective at w, but ascent="
                f"{self.ascent!r} is another objective: leave out combine=, or ascent="
            )

    def passes(
        self, groups: Sequence[dict[str, Any]], names: dict[Tensor, str], model: nn.Module | None, run: Run
    ) -> Generator[Objective, None, None]:
        """Yield the objective of each pass and leave the gradient in ``p.grad``."""
        radii = [not_negative("rho", group["rho"]) for group in groups]
        if any(radii) and self.cadence(groups[0][STEPS]):
            yield from self._two_passes(groups, names, model, run)
        else:
            yield from self._one_pass(groups, run)
        run.counts = True

    def _one_pass(self, groups: Sequence[dict[str, Any]], run: Run) -> Generator[Objective, None, None]:
        run.last = Last()
        carried = CarriedGradients([p for group in groups for p in group["params"]])
        finished = False
        try:
            yield from self._pass(0, self.descent, run)
            finished = True
        finally:
            if not finished:
                carried.give_back()

    def _two_passes(
        self, groups: Sequence[dict[str, Any]], names: dict[Tensor, str], model: nn.Module | None, run: Run
    ) -> Generator[Objective, None, None]:
        params = [p for group in groups for p in group["params"] if p.requires_grad]
        own = set(params)
        others = [] if model is None else [p for p in model.parameters() if p not in own]
        carried = CarriedGradients([*params, *others])  # all of them: the ascent pass must leave nothing in any
        random = RandomState(params) if self.same_dropout else None
        weights: Snapshot | None = None
        buffers: Buffers | None = None
        finished = False

        def put_back() -> None:
            with contextlib.ExitStack() as stack:  # each of them whatever becomes of the others; the weights first
                if not finished:
                    stack.callback(carried.give_back)
                if buffers is not None:
                    stack.callback(buffers.restore)
                if weights is not None:
                    stack.callback(torch.clear_autocast_cache)
                    stack.callback(weights.restore)

        try:
            carried.set_aside()
            ascent = yield from self._pass(0, self.ascent, run, is_ascent=True)
            at_w = _gradients(params) if self.combine else []
            buffers = Buffers(model) if model is not None else None
            weights = Snapshot(p for p in params if p.grad is not None)
            run.last = self._climb(groups, names, run)
            run.last.record(ascent)
            carried.give_back()
            if self.combine:
                carried.set_aside()
            if random is not None:
                random.rewind()
            yield from self._pass(1, self.descent, run)
            if self.combine:
                _combine(self.combine, params, at_w, run.last, carried)
            finished = True
        finally:
            try:
                put_back()
            except BaseException:  # Ctrl-C in the middle of it: once more, from the start
                put_back()
                raise

    def _pass(
        self, index: int, loss: Callable[..., Tensor], run: Run, *, is_ascent: bool = False
    ) -> Generator[Objective, None, Objective]:
        must_be_called = self.ascent is not self.descent
        run.objective = objective = Objective(index, loss, is_ascent=is_ascent, must_be_called=must_be_called)
        try:
            yield objective
            objective.finish()
        finally:
            objective.expire()
            run.objective = None
        return objective

    @torch.no_grad()
    def _climb(self, groups: Sequence[dict[str, Any]], names: dict[Tensor, str], run: Run) -> Last:
        """Move the weights to w + eps, using up the gradients."""
        buckets = buckets_of(groups, names)
        if not buckets:
            return Last()
        if not run.warned:
            run.warned = _warn_of_coarse_weights({bucket.params[0].dtype for bucket in buckets})
        if self.direction is not None:
            self.direction(buckets)
        last = Last(*climb(buckets, [self.geometry(bucket) for bucket in buckets]))
        torch.clear_autocast_cache()  # or the low-precision weights cached in the first pass would hide eps
        return last


@torch.no_grad()
def _gradients(params: Sequence[Tensor]) -> list[Tensor | None]:
    """Copy the gradients."""
    if any(p.grad is not None and p.grad.layout != torch.strided for p in params):
        raise ValueError("combine= needs dense gradients: build the layer with sparse=False")
    found = iter(copies([p.grad for p in params if p.grad is not None]))
    return [None if p.grad is None else next(found) for p in params]


@torch.no_grad()
def _combine(
    combine: Combine,
    params: Sequence[Tensor],
    at_w: Sequence[Tensor | None],
    last: Last,
    carried: CarriedGradients,
) -> None:
    """Combine the two gradients where there are two, then add what was carried; a lone one stays as it is."""
    gained = _gradients(params)  # copies, for an engine may keep the carried ones in the same storage
    pairs = [(g, s) for g, s in zip(at_w, gained, strict=True) if g is not None and s is not None]
    first, second = [g for g, _ in pairs], [s for _, s in pairs]
    if last.at_perturbed is not None:  # without a perturbation both are gradients at w, and the first may be NaN
        replace_unless(last.at_perturbed, first, second)
    combine(first, second)
    carried.give_back()
    kept = []
    for param, grad in zip(params, gained, strict=True):
        if param.grad is None:
            param.grad = grad
        elif grad is not None:
            kept.append((param.grad, grad))
    add([old for old, _ in kept], [grad for _, grad in kept])


def _warn_of_coarse_weights(dtypes: set[torch.dtype]) -> bool:
    coarse = dtypes & {torch.bfloat16, torch.float16}
    if coarse:
        warnings.warn(
            f"weights in {', '.join(sorted(map(str, coarse)))} round small perturbations away: "
            "compare opt.last.norm with rho, and prefer float32 weights under torch.autocast",
            stacklevel=5,
        )
    return bool(coarse)
