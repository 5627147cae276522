"""The climb: from gradients to w + eps."""

import contextlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._vectors import foreach
from .._vectors.bucket import Bucket, CommonUnit, buckets_of
from .._vectors.part import Part, each_norm
from .._vectors.vector import Vector
from ..ascent import StoredAscent
from ..choice import Memory
from ..direction import Direction
from ..geometry import Geometry
from ..radius import Radius
from .context import StepContext
from .saved import SavedState

__all__ = ["climb"]


@torch.no_grad()
def climb(
    context: StepContext,
    saved: SavedState,
    *,
    direction: Direction | None,
    geometry: Geometry,
    radius: Radius | None,
    unscale: bool,
    lent: bool = False,
    stored: StoredAscent | None = None,
) -> None:
    r"""Move every weight to w + eps, and use up the gradients.

    With radii r_k and directions d_k of the groups, e is the point of the geometry's unit set that is farthest along
    (r_k d_k), and

        eps_k = r_k e_k.

    For the l2 ball that is r_k^2 d_k / sqrt(sum_j r_j^2 ||d_j||^2), and with equal radii SAM's rho g / ||g||. A zero or
    non-finite gradient leaves every bit of the weights alone; that is decided on the device.

    Args:
        context: the running step.
        saved: takes the weights that are about to move.
        direction: along what of the gradient; None is the gradient.
        geometry: the feasible set.
        radius: a rule for the radius; None is the groups' ``rho``.
        unscale: whether to take the loss's scale out of the gradients.
        lent: whether the gradients are still needed, so that they may be changed in a copy alone.
        stored: supplies what to climb along, instead of the gradients.
    """
    sources = None
    if stored is not None:
        vector = stored(context.params, context.base, context.memory)
        sources = {p: t for part in vector.parts for p, t in zip(part.params, part.entries, strict=True)}
    buckets = buckets_of(context.groups, context.model.params, sources)
    if not buckets:
        return
    lent = lent or foreach.overlap([entry for bucket in buckets for entry in bucket.entries])
    for bucket in buckets:
        bucket.lent = lent
    with _without_autocast(buckets[0].weights[0].device.type):
        _climb(
            context,
            saved,
            buckets,
            direction,
            geometry,
            radius,
            context.scale() if unscale and stored is None else None,
        )
    torch.clear_autocast_cache()  # the low-precision weights that autocast cached in the first pass would hide eps


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    """A loop may stand inside of an autocast region; a geometry's matrix products shall not be in 16 bits there."""
    return torch.autocast(device, enabled=False) if _autocast_is_on(device) else contextlib.nullcontext()


def _autocast_is_on(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _climb(
    context: StepContext,
    saved: SavedState,
    buckets: list[Bucket],
    direction: Direction | None,
    geometry: Geometry,
    radius: Radius | None,
    scale: Tensor | float | None,
) -> None:
    if scale is not None:
        Vector(buckets).mul_(1 / scale)
    if direction is not None:
        direction(Vector(buckets), context.memory)
    geometry.select(buckets)
    buckets = [bucket for bucket in buckets if bucket.params]
    if not buckets:
        return
    _warn_of_coarse_weights(buckets, context.warned)
    unit = CommonUnit(buckets)
    _set_radii(buckets, radius, context.memory)
    geometry(buckets, context.memory)
    saved.moving = [bucket.params for bucket in buckets]
    saved.weights = foreach.Snapshot([weight for bucket in buckets for weight in bucket.weights])
    moving = [bucket for bucket in buckets if bucket.params]
    context.last.climbed(*(_move_by_host if unit.on_host else _move)(moving, unit.size))


def _move_by_host(buckets: Sequence[Bucket], size: Tensor | float) -> tuple[Tensor, Tensor]:
    """Subtract -eps from the weights where its norm can be read at once: one sweep, and none without a perturbation.

    Returns:
        As :func:`_move`.
    """
    parts = [bucket.entries_and_factor() for bucket in buckets]
    own = [bucket.reach(factor) for bucket, (_, factor) in zip(buckets, parts, strict=True)]
    norm = math.hypot(*own)
    perturbed = 0 < norm < math.inf and math.isfinite(float(size))
    if perturbed:
        for bucket, (entries, factor) in zip(buckets, parts, strict=True):
            foreach.add_(bucket.weights, entries, -factor)
    return torch.tensor(norm if perturbed else 0.0, dtype=torch.float64, device="cpu"), torch.tensor(
        perturbed, device="cpu"
    )


def _set_radii(buckets: Sequence[Bucket], radius: Radius | None, memory: Memory) -> None:
    """Tell each bucket what its farthest point is multiplied by: minus the radius, because it is subtracted.

    A rule takes the norm of the direction without the groups' relative radii, summed in one of their units.
    """
    for bucket in buckets:
        bucket.due = -bucket.sign * bucket.rho
    if radius is not None:
        largest = max(bucket.rho for bucket in buckets)
        norms = each_norm(buckets)  # the first to ask: it chooses the unit
        common = buckets[0].unit
        own = [norm * (b.unit.to(common) / common).to(norm) for norm, b in zip(norms, buckets, strict=True)]
        length = torch.linalg.vector_norm(torch.stack([norm.to(common) for norm in own])) * common
        rule = radius(largest, length, memory) / largest
        for bucket in buckets:
            bucket.due = torch.where(torch.isfinite(rule), rule * bucket.due, 0)


def _move(buckets: Sequence[Bucket], size: Tensor | float) -> tuple[Tensor, Tensor]:
    """Subtract the ``tensors``, which hold -eps, from the weights, unless the gradient was zero or not finite.

    Without a perturbation -eps may be NaN, and NaN times 0 is NaN. So its *bits* are multiplied by 0, which gives +0.0,
    and w - (+0.0) is w for every w (w + 0.0 would turn -0.0 into 0.0).

    Returns:
        The norm of what the weights have moved by, and whether they have: 0-dim.
    """
    assert isinstance(size, Tensor)
    for bucket in buckets:
        bucket.pay()
    norm = Vector(buckets).norm().to(size.device)
    perturbed = torch.isfinite(size) & torch.isfinite(norm) & (norm > 0)
    realised: list[Part] = []
    for bucket in buckets:
        foreach.mul_(foreach.as_integers(bucket.tensors), perturbed)
        if bucket.weights[0].dtype.itemsize > 2:
            foreach.sub_(bucket.weights, bucket.entries)
            realised.append(bucket)
        else:  # a coarse dtype rounds small steps away: measure what is left of them
            before = foreach.copies(bucket.weights)
            foreach.sub_(bucket.weights, bucket.entries)
            foreach.sub_(before, bucket.weights)
            realised.append(Part(bucket.params, before, bucket.shards))
    if any(bucket.weights[0].dtype.itemsize == 2 for bucket in buckets):
        norm = Vector(realised).norm().to(size.device)
    return torch.where(perturbed, norm, 0), perturbed


def _warn_of_coarse_weights(buckets: Sequence[Bucket], warned: set[str]) -> None:
    coarse = {str(bucket.weights[0].dtype) for bucket in buckets if bucket.weights[0].dtype.itemsize == 2}
    if coarse and "coarse" not in warned:
        warned.add("coarse")
        warnings.warn(
            f"weights in {', '.join(sorted(coarse))} round small perturbations away: "
            "compare opt.last.norm with rho, and prefer float32 weights under torch.autocast",
            stacklevel=6,
        )
