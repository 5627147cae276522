"""The climb: from gradients to w + eps."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._vectors import foreach
from .._vectors.vector import Bucket, Part, Vector, buckets_of, reduction_device
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
        stored: supplies what to climb along, instead of the gradients.
    """
    sources = None
    if stored is not None:
        vector = stored(context.params, context.base, context.memory)
        sources = {p: t for part in vector.parts for p, t in zip(part.params, part.tensors, strict=True)}
    buckets = buckets_of(context.groups, context.model.params, sources)
    if not buckets:
        return
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
    highest = _to_common_unit(buckets)
    _set_radii(buckets, radius, context.memory, highest)
    geometry(buckets, context.memory)
    saved.moving = [bucket.params for bucket in buckets]
    saved.weights = foreach.Snapshot([weight for bucket in buckets for weight in bucket.weights])
    context.last.climbed(*_move([bucket for bucket in buckets if bucket.params], highest))


def _set_radii(buckets: Sequence[Bucket], radius: Radius | None, memory: Memory, highest: Tensor) -> None:
    """Tell each bucket what its farthest point is multiplied by: minus the radius, because it is subtracted.

    A rule takes the norm of the direction without the groups' relative radii. It is summed in units of ``highest``.
    """
    for bucket in buckets:
        bucket.due = -bucket.sign * bucket.rho
    if radius is not None:
        largest = max(bucket.rho for bucket in buckets)
        common = torch.where(highest > 0, highest, 1)
        own = torch.stack([(b.norm() * (b.unit.to(common) / common)).to(common.device) for b in buckets])
        rule = radius(largest, torch.linalg.vector_norm(own) * common, memory) / largest
        for bucket in buckets:
            bucket.due = torch.where(torch.isfinite(rule), rule * bucket.due, 0)


def _to_common_unit(buckets: Sequence[Bucket]) -> Tensor:
    """Multiply each bucket's gradient by its relative radius, in units of the largest magnitude, which is returned.

    Squares in a geometry then neither overflow nor vanish where they count. Where dtypes differ, or have 16 bits, one
    of them may not hold the common unit: there each bucket is divided by its own largest magnitude first.
    """
    if len(buckets) == 1 and buckets[0].tensors[0].dtype.itemsize > 2:
        highest = buckets[0].norm(torch.inf)
        buckets[0].unit = torch.where(highest > 0, highest, 1)
        foreach.div_(buckets[0].tensors, buckets[0].unit)
        return highest
    largest = max(bucket.rho for bucket in buckets)
    place = reduction_device(bucket.weights[0].device for bucket in buckets)
    own = [bucket.norm(torch.inf) for bucket in buckets]
    highest = torch.stack([max_abs.to(place) for max_abs in own]).amax()
    common = torch.where(highest > 0, highest, 1)
    dtypes = {bucket.tensors[0].dtype for bucket in buckets}
    one_unit = len(dtypes) == 1 and buckets[0].tensors[0].dtype.itemsize > 2
    for bucket, max_abs in zip(buckets, own, strict=True):
        bucket.unit = common / (bucket.rho / largest)
        if one_unit:
            foreach.div_(bucket.tensors, bucket.unit)
        else:
            foreach.div_(bucket.tensors, torch.where(max_abs > 0, max_abs, 1))
            foreach.mul_(bucket.tensors, torch.where(max_abs > 0, max_abs.to(place) / bucket.unit, 0))
    return highest


def _move(buckets: Sequence[Bucket], highest: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the ``tensors``, which hold -eps, from the weights, unless the gradient was zero or not finite.

    Without a perturbation -eps may be NaN, and NaN times 0 is NaN. So its *bits* are multiplied by 0, which gives +0.0,
    and w - (+0.0) is w for every w (w + 0.0 would turn -0.0 into 0.0).

    Returns:
        The norm of what the weights have moved by, and whether they have: 0-dim.
    """
    for bucket in buckets:
        if isinstance(bucket.due, Tensor) or bucket.due != 1.0:  # the geometry has not done it
            foreach.mul_(bucket.tensors, bucket.due)
    norm = Vector(buckets).norm().to(highest.device)
    perturbed = torch.isfinite(highest) & torch.isfinite(norm) & (norm > 0)
    realised: list[Part] = []
    for bucket in buckets:
        foreach.mul_(foreach.as_integers(bucket.tensors), perturbed)
        if bucket.weights[0].dtype.itemsize > 2:
            foreach.sub_(bucket.weights, bucket.tensors)
            realised.append(bucket)
        else:  # a coarse dtype rounds small steps away: measure what is left of them
            before = foreach.copies(bucket.weights)
            foreach.sub_(bucket.weights, bucket.tensors)
            foreach.sub_(before, bucket.weights)
            realised.append(Part(bucket.params, before, bucket.shards))
    if any(bucket.weights[0].dtype.itemsize == 2 for bucket in buckets):
        norm = Vector(realised).norm().to(highest.device)
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
