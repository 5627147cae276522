"""How far may rho go? A sweep of radii at fixed weights, for the price of a few passes.

Best radii differ by a factor of ten between geometries, models and data sets. What can be seen before training is at
which scale a radius begins to matter, and where the gradient at w + eps stops being one of the loss at w. Both are
angles: with g the descent objective's gradient at w and g_s the one at w + eps on the same batch, cos(g_s, g) falls
from 1 towards 0 as rho grows.

Which radius in between generalises best cannot be seen there. On digits with noisy labels it was the largest that left
the cosine at 0.5; on Fashion-MNIST with the same noise that one collapsed, and the best left it at 0.99; with clean
labels plain SGD beat every radius there. So this is **a range to search, and where to start**: at a radius that hardly
turns the gradient, and up while validation improves. It found no better start than the published default did.
docs/rho-range.md has the numbers.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._step.climb import climb
from ._step.context import StepContext
from ._step.forward_state import ForwardState
from ._step.model import ModelInfo
from ._step.saved import RandomState, SavedState
from ._step.stats import StepStats
from ._validation import count, positive
from ._vectors.shards import shards_of
from ._vectors.vector import Vector
from .ascent import StoredAscent
from .losses.functional_sam import OutputGradient
from .optimizer import SharpnessAware

__all__ = ["RadiusResult", "RhoRange", "rho_range"]

#: Where cos(g_s, g) is this much or more, the method is hardly other than its base optimizer.
SAME = 0.99
#: The largest radius that leaves it this much is where to start.
START = 0.95
#: Where it is less, g_s holds more of something else than of g.
HALF = 0.5
#: Factor from rung to rung of the ladder that is found rather than given.
FACTOR = 2.0
#: Rungs of that ladder, at most, up and down from the present rho.
RUNGS = 12


@dataclass(frozen=True)
class RadiusResult:
    """What one radius does, averaged over the batches.

    Example:
        >>> found = bisam.rho_range(bisam.SAM(base, model=model), model, loader, radii=[0.1, 0.2], n=2)
        >>> found.rows[1].perturbed_loss > found.rows[1].loss
        True

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


@dataclass(frozen=True)
class RhoRange:
    """A range of radii to search, and where to start; ``print`` shows the whole curve.

    Example:
        >>> found = bisam.rho_range(bisam.SAM(base, model=model), model, loader, radii=[0.1, 0.2, 0.4], n=2)
        >>> found.low <= found.suggestion <= found.high
        True

    Attributes:
        rows: one for each radius, smallest first.
        low: largest radius with cosine >= 0.99 all the way up to it, or else the smallest one swept: up to here the
            method is hardly other than its base optimizer.
        suggestion: the same with cosine >= 0.95: where to start, and to go up from while validation improves.
        high: largest radius with cosine >= 0.5 all the way up to it: where to stop. Training can collapse there
            already.
        batches: batches that were climbed.
        passes: forward-backward passes that it cost.
        complete: whether the curve was followed from cosine 0.99 down to 0.5; if not, the range may be wider.
    """

    rows: tuple[RadiusResult, ...]
    low: float
    suggestion: float
    high: float
    batches: int
    passes: int
    complete: bool

    def __str__(self) -> str:
        head = f"{'rho':>9} {'||eps||':>9} {'L(w)':>9} {'L(w+eps)':>9} {'cos g':>7} {'unseen':>7} {'cos w':>7}"
        marks = {self.high: "high", self.low: "low", self.suggestion: "start here"}
        lines = [
            f"{r.rho:9.4g} {r.norm:9.4g} {r.loss:9.4f} {r.perturbed_loss:9.4f} {r.cosine:7.3f} {_cell(r.unseen)} "
            f"{r.shrink:+7.3f}  {marks.get(r.rho, '')}".rstrip()
            for r in self.rows
        ]
        end = "" if self.complete else " The sweep ended inside the curve, so the range may be wider."
        return "\n".join(
            [
                head,
                *lines,
                f"A range to search, and where to start: rho from {self.low:.4g} to {self.high:.4g}; start at "
                f"{self.suggestion:.4g} and go up while validation improves "
                f"({self.passes} passes, {self.batches} batches).{end}",
            ]
        )


def _cell(value: float) -> str:
    return f"{'-':>7}" if math.isnan(value) else f"{value:7.3f}"


def rho_range(
    opt: SharpnessAware,
    model: nn.Module,
    batches: Iterable[Any],
    *,
    radii: Sequence[float] | None = None,
    n: int = 4,
    max_passes: int | None = None,
) -> RhoRange:
    """Sweep radii at the model's present weights, and return a range to search.

        rho = bisam.rho_range(opt, model, loader)
        print(rho)

    Each of ``n`` batches is climbed once, with the optimizer's own ascent objective, direction and geometry; then every
    radius costs one pass a batch. Weights, buffers, gradients, optimizer and torch's random state are left as they
    were, to the bit, also after an exception. Call it after a few steps of plain training, in the mode and under the
    autocast that you train in: random initial weights are no place to judge from.

    What is swept is the perturbation. Whatever ``combine`` makes of the gradient afterwards, and on which steps
    ``cadence`` perturbs, is left out. A direction or a mask that remembers (VaSSO, F-SAM, SSAM) is taken as it stands,
    which before the first step is the plain gradient and the full mask. Of groups with radii of their own, the largest
    runs through ``radii`` and the others keep their ratio to it.

    Example:
        >>> from bisam import SAM, rho_range
        >>> opt = SAM(base, model=model)
        >>> found = rho_range(opt, model, loader, radii=[0.05, 0.1, 0.2], n=2)
        >>> [round(row.rho, 2) for row in found.rows]
        [0.05, 0.1, 0.2]

    Args:
        opt: a sharpness-aware optimizer of the model's parameters.
        model: the network, bare or compiled; called as ``model(input)``.
        batches: (input, target) pairs on the model's device, of the size that you train with; the first ``n`` are used.
        radii: to sweep, increasing, > 0. None starts at the present rho and goes up in factors of two until the cosine
            is below 0.5, and down until it is 0.99.
        n: batches, >= 1; 2 or more also tell ``unseen``.
        max_passes: end the sweep, or with ``radii`` refuse it, rather than need more forward-backward passes than this.

    Returns:
        The curve and the range.

    Raises:
        TypeError: ``opt`` is no sharpness-aware optimizer, or a batch no pair.
        ValueError: no batches, or fewer than ``n``; radii that are not increasing; rho is 0 in every group; a loss at w
            that is not finite, or a gradient to climb along that is zero or not finite; sparse gradients; a model under
            DDP or FSDP; too small a ``max_passes``; not one radius that leaves the cosine at 0.5.
    """
    count("n", n)
    start = _present(opt, model)
    ladder = None if radii is None else _increasing(radii)
    with _untouched(opt, model) as (context, saved):
        taken = _pairs(batches, n)
        sweep = _Sweep(opt, model, context, saved, taken)
        least = sweep.cost_at_w + n * (1 if ladder is None else len(ladder))
        if max_passes is not None and max_passes < least:
            raise ValueError(
                f"max_passes={max_passes!r} is less than the {least} that {n} batches need at the least: "
                "pass a smaller n, or fewer radii"
            )
        sweep.look_at_w()
        if ladder is not None:
            rows = [sweep.measure(rho) for rho in ladder]
        else:
            rows = _follow(start, sweep.measure, lambda: max_passes is None or sweep.passes + n <= max_passes)
    return _judge(rows, n, sweep.passes)


def _follow(start: float, measure: Callable[[float], RadiusResult], may: Callable[[], bool]) -> list[RadiusResult]:
    """Go up from ``start`` until the cosine is below HALF, and down until it is SAME."""
    rows = [measure(start)]
    while rows[-1].cosine >= HALF and len(rows) <= RUNGS and may():
        rows.append(measure(rows[-1].rho * FACTOR))
    down = 0
    while not rows[0].cosine >= SAME and down < RUNGS and may():
        rows.insert(0, measure(rows[0].rho / FACTOR))
        down += 1
    return rows


def _judge(rows: Sequence[RadiusResult], batches: int, passes: int) -> RhoRange:
    fit = list(itertools.takewhile(lambda row: row.cosine >= HALF, rows))
    if not fit:
        raise ValueError(
            f"radii: even the smallest, {rows[0].rho:.4g}, leaves the gradient at w + eps a cosine of only "
            f"{rows[0].cosine:.3f} with the one at w, so all of them are too large: sweep smaller ones"
        )
    return RhoRange(
        rows=tuple(rows),
        low=_last(fit, SAME),
        suggestion=_last(fit, START),
        high=fit[-1].rho,
        batches=batches,
        passes=passes,
        complete=rows[0].cosine >= SAME and len(fit) < len(rows),
    )


def _last(rows: Sequence[RadiusResult], least: float) -> float:
    """Return the last radius before the cosine falls below ``least``, or the first one of all."""
    near = list(itertools.takewhile(lambda row: row.cosine >= least, rows))
    return near[-1].rho if near else rows[0].rho


def _present(opt: SharpnessAware, model: nn.Module) -> float:
    """Return the present rho, the largest of the groups', if there is anything to sweep."""
    if not isinstance(opt, SharpnessAware):
        raise TypeError(f"opt={type(opt).__name__} must be a sharpness-aware optimizer, such as bisam.SAM(base)")
    if ModelInfo(model, opt.base).distributed or any(shards_of(param) is not None for param in model.parameters()):
        raise ValueError("model is distributed (DDP, FSDP): sweep the bare model in one process, before wrapping it")
    rho = max(float(group["rho"]) for group in opt.param_groups)
    if not rho > 0:
        raise ValueError("rho=0 in every group of opt, so it never perturbs: build it with rho > 0, or set one group's")
    return rho


def _increasing(radii: Sequence[float]) -> list[float]:
    ladder = [positive("radii", rho) for rho in radii]
    if not ladder or any(a >= b for a, b in itertools.pairwise(ladder)):
        raise ValueError(f"radii={list(radii)} must be increasing and not empty, for instance (0.05, 0.1, 0.2)")
    return ladder


def _pairs(batches: Iterable[Any], n: int) -> list[tuple[Any, Any]]:
    taken = list(itertools.islice(batches, n))
    if len(taken) < n:
        raise ValueError(f"batches holds {len(taken)} of the n={n} batches wanted: pass more, or a smaller n")
    for batch in taken:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"batches must hold (input, target) pairs, and holds a {type(batch).__name__}")
    return [(batch[0], batch[1]) for batch in taken]


class _Sweep:
    """The passes at w, and those at w + eps; each starts from the buffers at hand and its batch's random state."""

    def __init__(
        self, opt: SharpnessAware, model: nn.Module, context: StepContext, saved: SavedState, taken: Sequence[Any]
    ) -> None:
        self.model, self.context, self.saved, self.taken = model, context, saved, taken
        self.estimator = opt.estimator
        self.passes = 0
        self.radii = [group["rho"] for group in context.groups]
        self._ascent, self._descent = _objectives(opt)
        self.cost_at_w = len(taken) * (1 if self._ascent is None or self._ascent is self._descent else 2)
        self._random: list[RandomState] = []
        self._losses: list[float] = []
        self._climbs: list[list[Tensor | None]] = []
        self._at_w: list[Vector] = []
        self._weights = _unit((param, param.detach()) for param in context.params)

    def look_at_w(self) -> None:
        """Take the gradients at w: the one to climb along, and the one to compare with."""
        params = self.context.params
        for number in range(len(self.taken)):
            self._random.append(RandomState(params))
            value = self._pass(number, self._descent if self._ascent is None else self._ascent)
            self._climbs.append([None if p.grad is None else p.grad.clone() for p in params])
            if self._ascent is not None and self._ascent is not self._descent:
                value = self._pass(number, self._descent)
            if not math.isfinite(value):
                raise ValueError(f"the loss of batch {number} at the present weights is {value}: it must be finite")
            self._losses.append(value)
            self._at_w.append(self._gradient())

    def measure(self, rho: float) -> RadiusResult:
        """Climb every batch by ``rho`` and see what is left of its gradient."""
        for group, radius in zip(self.context.groups, self.radii, strict=True):
            group["rho"] = rho * (radius / max(self.radii))
        rows = [self._at_perturbed(number) for number in range(len(self.taken))]
        columns = zip(*rows, strict=True)
        return RadiusResult(rho, *(sum(column) / len(rows) for column in columns))

    def _at_perturbed(self, number: int) -> tuple[float, ...]:
        for param, grad in zip(self.context.params, self._climbs[number], strict=True):
            param.grad = None if grad is None else grad.clone()  # the climb uses it up
        estimator = self.estimator
        self.context.last = last = StepStats()
        climb(
            self.context,
            self.saved,
            stored=estimator.ascent if isinstance(estimator.ascent, StoredAscent) else None,
            direction=estimator.direction,
            geometry=estimator.geometry,
            radius=estimator.radius,
            unscale=False,
        )
        if not last.perturbed:
            raise ValueError(
                f"the gradient to climb along is zero or not finite on batch {number}, so no radius moves anything"
            )
        value = self._pass(number, self._descent)
        gradient = self._gradient()
        if self.saved.weights is not None:
            with torch.no_grad():
                self.saved.weights.restore()
        others = [float(gradient.dot(g)) for i, g in enumerate(self._at_w) if i != number]
        unseen = sum(others) / len(others) if others else math.nan
        cosine, shrink = float(gradient.dot(self._at_w[number])), float(gradient.dot(self._weights))
        return last.norm, self._losses[number], value, cosine, unseen, shrink

    def _pass(self, number: int, objective: Callable[..., Tensor]) -> float:
        x, y = self.taken[number]
        self._random[number].rewind()
        if self.saved.forward is not None:
            self.saved.forward.restore()
        self.saved.carried.set_aside()
        torch.clear_autocast_cache()  # casts of the weights as they were in the pass before
        with torch.enable_grad():
            loss = objective(self.model(x), y)
            loss.backward()
        self.passes += 1
        return float(loss.detach())

    def _gradient(self) -> Vector:
        found = [(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in self.context.params]
        if any(grad.layout != torch.strided for _, grad in found):
            raise ValueError("a gradient is sparse, and its angle is not taken: build the layer with sparse=False")
        return _unit(found)


def _objectives(opt: SharpnessAware) -> tuple[Callable[..., Tensor] | None, Callable[..., Tensor]]:
    """Return what is climbed, None where no pass computes it, and the loss that is descended."""
    ascent, descent = opt.estimator.ascent, opt.estimator.descent
    if isinstance(descent, OutputGradient):  # its two passes are those of a step; here each stands alone
        ascent, descent = descent.ascent or descent.loss, descent.loss
    return (None if isinstance(ascent, StoredAscent) else ascent), descent


def _unit(entries: Iterable[tuple[Tensor, Tensor]]) -> Vector:
    """Return a copy of length 1, whatever the magnitude; of zero, zero."""
    vector = Vector.of(entries).copy()
    for size in (Vector.max_abs, Vector.norm):
        length = size(vector)
        vector.mul_(1 / torch.where(length == 0, 1, length))
    return vector


@contextlib.contextmanager
def _untouched(opt: SharpnessAware, model: nn.Module) -> Iterator[tuple[StepContext, SavedState]]:
    """Save everything that a sweep changes, and put it back however the sweep ends."""
    opt._settle("rho_range()")
    random = RandomState(model.parameters())
    context = StepContext(opt.base, ModelInfo(model, opt.base), opt.memory)
    params, radii = context.params, [group["rho"] for group in context.groups]
    saved = SavedState(params, context.model.others(params), torch.clear_autocast_cache)
    saved.forward = ForwardState.now(context.model)
    try:
        yield context, saved
    finally:
        for group, rho in zip(context.groups, radii, strict=True):
            group["rho"] = rho
        opt.memory.discard()
        saved.put_back()
        random.rewind()
