"""SSAM's masks: which weights a sparse perturbation moves."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._validation import count, fraction
from .._vectors.random import uniform
from .._vectors.shards import reduce_each
from ..choice import Bucket, Memory, Vector, Wrapper
from ._base import Geometry
from .ellipsoids import L2Ball

__all__ = ["SparseSupport"]

_INFINITY = 0x7F800000  # float32's infinity as an integer: floats >= 0 sort as their bits do


class SparseSupport(Wrapper, Geometry):
    """SSAM's mask (Mi et al., NeurIPS 2022, arXiv 2210.05177): only a fraction 1 - sparsity of the weights moves.

    eps is that of the inner set; its length is settled before the mask, as in the authors' code. The mask counts over
    all weights together, is saved with the optimizer, and changes by one of two rules:

    - ``"dynamic"`` (SSAM-D): every ``every`` steps a fraction of the live weights, those with the smallest gradient,
      come to rest, and as many resting ones, drawn from (seed, step), go live. The fraction falls from ``drop_rate`` to
      0 along a cosine over ``total_steps``. The step that changes the mask still moves by the old one.
    - ``"fisher"`` (SSAM-F): the weights with the largest Fisher information are live. The mask changes when you call
      :func:`bisam.loops.learn_fisher_mask`.

    Until the mask is first set every weight moves. The authors' code moves others in its first step: SSAM-D those of a
    random mask with the sparsity asked for, SSAM-F none at all, because its mask is all zero until the first update.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import SparseSupport
        >>> opt = SAM(base, model=model, geometry=SparseSupport(0.5, every=100, total_steps=1000))

    Args:
        sparsity: fraction of the weights that rest, in (0, 1).
        rule: ``"dynamic"`` or ``"fisher"``.
        every: steps between changes of a dynamic mask, >= 1; 100 unless given (the authors: five epochs).
        drop_rate: of a dynamic mask, in (0, 1]; 0.5 unless given.
        total_steps: length of the training; None keeps the drop rate.
        seed: of the draws of a dynamic mask; 0 unless given.
        inner: the set that eps comes from; None is the Euclidean ball.

    Raises:
        ValueError: a number out of its range; a number of the dynamic mask together with ``rule="fisher"``.
    """

    own_memory = ("resting",)

    def __init__(
        self,
        sparsity: float = 0.5,
        rule: str = "dynamic",
        *,
        every: int | None = None,
        drop_rate: float | None = None,
        total_steps: int | None = None,
        seed: int | None = None,
        inner: Geometry | None = None,
    ) -> None:
        super().__init__(L2Ball() if inner is None else inner)
        if rule not in ("dynamic", "fisher"):
            raise ValueError(f"rule={rule!r} is unknown: choose 'dynamic' or 'fisher'")
        if fraction("sparsity", sparsity) == 1:
            raise ValueError(f"sparsity={sparsity!r} must be less than 1, or nothing would ever move")
        dynamic = {"every": every, "drop_rate": drop_rate, "total_steps": total_steps, "seed": seed}
        for name, value in dynamic.items():
            if rule == "fisher" and value is not None:
                raise ValueError(f"{name}={value!r} has no effect with rule='fisher', whose mask you set yourself")
        self.sparsity, self.rule = float(sparsity), rule
        self.every = 100 if every is None else count("every", every)
        self.drop_rate = 0.5 if drop_rate is None else fraction("drop_rate", drop_rate)
        self.total_steps = total_steps if total_steps is None else count("total_steps", total_steps)
        self.seed = 0 if seed is None else seed

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Ask the inner set, and mask its point; a dynamic mask changes when its time has come."""
        changes = self.rule == "dynamic" and memory.step % self.every == 0 and not memory.written("resting")
        gradient = Vector(buckets).copy() if changes else None  # the inner set overwrites it
        self.inner(buckets, memory)
        left = [bucket for bucket in buckets if bucket.params]
        if not left:
            return
        resting = memory.read("resting", Vector(left))
        if gradient is not None:
            self._redraw(gradient.only(set(resting.params)), [bucket.rho for bucket in left], resting, memory)
        for bucket, part in zip(left, resting.parts, strict=True):
            bucket.multiply(part.in_row((1 - part.as_row()).to(bucket.weights[0].dtype)).entries)

    def _redraw(self, gradient: Vector, radii: Sequence[float], resting: Vector, memory: Memory) -> None:
        """Drop and grow: write the mask of the steps to come."""
        step, total = memory.step, entries_of(gradient.params)
        live = round(total * (1 - self.sparsity))
        done = 0.0 if self.total_steps is None else min(1.0, step / self.total_steps)
        drop = self.drop_rate * (1 + math.cos(math.pi * done)) / 2
        rests = resting.rows()
        scores = [  # magnitudes of the gradient itself, without its group's relative radius
            (row.abs() * (max(radii) / rho) * (1 - rest)).float()
            for row, rho, rest in zip(gradient.rows(), radii, rests, strict=True)
        ]
        kept = mark_largest(scores, gradient, torch.tensor(round(live * (1 - drop)), device=rests[0].device))
        missing = live - _total(kept, gradient)
        room = _total([(r > 0) & ~k for r, k in zip(rests, kept, strict=True)], gradient) >= missing
        drawn = []
        for number, (part, rest, keep) in enumerate(zip(gradient.parts, rests, kept, strict=True)):
            place = 0 if part.shards is None else part.shards.number
            draws = 1 - uniform(part.entries, self.seed, step, number, place)  # above zero
            eligible = torch.where(room.to(rest.device), rest > 0, True) & ~keep  # at first none rests: any may grow
            drawn.append(draws * eligible)
        grown = mark_largest(drawn, gradient, missing)
        memory.valid = finite = gradient.max_abs().isfinite()
        masks = [(~(k | g)).to(r.dtype) for k, g, r in zip(kept, grown, rests, strict=True)]
        memory.write("resting", resting.of_rows(masks), finite=finite)


def entries_of(params: Sequence[Tensor]) -> int:
    """Return the number of real entries of parameters, over all processes."""
    return sum(param.numel() * (2 if param.is_complex() else 1) for param in params)


def mark_largest(scores: Sequence[Tensor], over: Vector, wanted: Tensor) -> list[Tensor]:
    """Mark the ``wanted`` largest positive float32 scores over all rows and shards; of a tie that goes beyond, none.

    The threshold is found by bisection over the bits of float32. That needs no sort, no single place for all shards,
    and no read back to the host.

    Args:
        scores: a row of scores for each part of ``over``.
        over: the vector whose parts say how the rows are sharded.
        wanted: how many, 0-dim.
    """
    rows = [row.view(torch.int32) for row in scores]
    low, high = torch.ones_like(wanted), torch.full_like(wanted, _INFINITY + 1)
    for _ in range(31):
        middle = (low + high) // 2
        few = _total([row >= middle.to(row.device) for row in rows], over) <= wanted
        low, high = torch.where(few, low, middle + 1), torch.where(few, middle, high)
    return [row >= high.to(row.device) for row in rows]


def _total(masks: Sequence[Tensor], over: Vector) -> Tensor:
    """Count the marks over all rows and shards: 0-dim."""
    device = masks[0].device
    counts = reduce_each([mask.sum() for mask in masks], [part.shards for part in over.parts], "sum")
    return torch.stack([count.to(device) for count in counts]).sum()
