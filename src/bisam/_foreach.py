"""Arithmetic on lists of tensors: the only place that calls ``torch._foreach_*``.

Every function here dispatches a number of operations that depends on how many (group, device, dtype) buckets there
are, never on how many parameters; and none reads a value back to the host.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Bucket",
    "Scale",
    "Snapshot",
    "add",
    "buckets_of",
    "climb",
    "copies",
    "lerp",
    "magnitudes",
    "multiply",
    "replace_unless",
]

#: The diagonal of a ball's metric, a tensor for each parameter; None stands for 1, for a parameter or for them all.
Scale = Sequence[Tensor | None] | None

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Bucket:
    """Parameters of one group, device and dtype together with the gradients to climb along.

    Attributes:
        params: the weights; complex ones as pairs of reals.
        grads: a gradient for each of them, owned by the bucket and changed in place.
        names: their names in the model, None where unknown.
        rho: radius of their group, > 0.
    """

    params: list[Tensor]
    grads: list[Tensor]
    names: list[str | None]
    rho: float


def buckets_of(groups: Iterable[dict[str, Any]], names: dict[Tensor, str]) -> list[Bucket]:
    """Sort the parameters that have a gradient, and a radius above zero, into buckets.

    Raises:
        ValueError: a sparse gradient.
    """
    buckets: dict[tuple[int, torch.device, torch.dtype], Bucket] = {}
    for number, group in enumerate(groups):
        for param in group["params"] if group["rho"] > 0 else ():
            grad = param.grad
            if grad is None or not param.requires_grad or param.numel() == 0:
                continue
            if grad.layout != torch.strided:
                name = names.get(param, f"of shape {tuple(param.shape)}")
                raise ValueError(
                    f"the gradient of parameter {name} is sparse ({grad.layout}), and a perturbation is dense: "
                    "build the layer with sparse=False, or give its group rho=0"
                )
            weight = param.detach()
            if weight.is_complex():
                weight, grad = torch.view_as_real(weight), torch.view_as_real(grad.resolve_conj().resolve_neg())
            key = (number, weight.device, weight.dtype)
            bucket = buckets.setdefault(key, Bucket([], [], [], group["rho"]))
            bucket.params.append(weight)
            bucket.grads.append(grad)
            bucket.names.append(names.get(param))
    return list(buckets.values())


class Snapshot:
    """Copies of tensors, taken and put back bit for bit: -0.0, subnormal numbers and NaN payloads included.

    The tensors are read and written as integers, which no rounding mode and no flushing of subnormals touches, and
    keep their storage. Those without plain bits (sparse, quantized, conjugate or expanded views) are cloned one by one,
    and written back only if something has changed them.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        everything = list(tensors)
        dense = [tensor for tensor in everything if _plain(tensor)]
        self._odd = [(t, t.detach().clone(), t._version) for t in everything if not _plain(t)]
        self._parts = [(live, torch._foreach_add(live, 0)) for (live,) in _alike(dense)]

    def restore(self) -> None:
        """Write the copies back."""
        for live, saved in self._parts:
            torch._foreach_copy_(live, saved)
        for tensor, copy, version in self._odd:
            if tensor._version != version:
                tensor.copy_(copy)


def climb(buckets: Sequence[Bucket], scales: Sequence[Scale]) -> tuple[Tensor, Tensor]:
    r"""Move every weight to w + eps, where eps climbs farthest inside the ball, and use up ``grads``.

    With radii r_k, gradients g_k and scales T_k of the buckets,

        eps_k = r_k^2 T_k^2 g_k / sqrt(sum_j r_j^2 ||T_j g_j||^2),

    which for equal radii and T = 1 is SAM's rho g / ||g||. A zero or non-finite gradient leaves every bit of the
    weights alone; that is decided on the device. Each bucket's g is divided by its own largest entry before it is
    multiplied or squared, so gradients of any magnitude, and of any mix of dtypes, have a norm.

    Returns:
        The l2 norm of the perturbation as the weights took it, and whether there was one: 0-dim tensors.
    """
    devices = [bucket.params[0].device for bucket in buckets]
    home = next((device for device in devices if device.type != "cpu"), devices[0])
    own = [_norm(bucket.grads, torch.inf) for bucket in buckets]
    for bucket, scale, peak in zip(buckets, scales, own, strict=True):
        torch._foreach_div_(bucket.grads, _like(bucket.grads[0], torch.where(peak > 0, peak, 1)))
        multiply(bucket.grads, scale)

    peaks = torch.stack([peak.to(home) for peak in own])
    radius = max(bucket.rho for bucket in buckets)
    ratios = [bucket.rho / radius for bucket in buckets]
    highest = peaks.amax()
    shares = peaks / torch.where(highest > 0, highest, 1)  # how large each bucket's unit is, beside the largest
    norms = torch.stack([ratio * _norm(b.grads, 2).to(home) for ratio, b in zip(ratios, buckets, strict=True)])
    length = torch.linalg.vector_norm(shares * norms)
    perturbed = torch.isfinite(highest) & torch.isfinite(length) & (length > 0)

    realised = []
    for ratio, bucket, scale, share in zip(ratios, buckets, scales, shares.unbind(), strict=True):
        torch._foreach_mul_(bucket.grads, _like(bucket.grads[0], -radius * ratio**2 * share / length))
        multiply(bucket.grads, scale)
        realised.append(_subtract(bucket, perturbed).to(home))
    return torch.linalg.vector_norm(torch.stack(realised)), perturbed


def multiply(tensors: list[Tensor], scale: Scale) -> None:
    """Multiply each tensor in place by its scale."""
    pairs = [(t, s) for t, s in zip(tensors, scale or (), strict=bool(scale)) if s is not None]
    if pairs:
        torch._foreach_mul_([t for t, _ in pairs], [s for _, s in pairs])


def magnitudes(tensors: list[Tensor], floor: float) -> list[Tensor]:
    """Return abs(t) + floor of each tensor."""
    sizes = list(torch._foreach_abs(tensors))
    if floor:
        torch._foreach_add_(sizes, floor)
    return sizes


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Return a copy of each tensor."""
    return list(torch._foreach_mul(tensors, 1.0)) if tensors else []


def add(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Add ``others`` to ``tensors`` in place."""
    if tensors:
        torch._foreach_add_(tensors, others)


def lerp(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Replace each tensor in place by (1 - weight) tensor + weight end."""
    if tensors:
        torch._foreach_lerp_(tensors, ends, weight)


def replace_unless(keep: Tensor, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Where the 0-dim ``keep`` is false, overwrite ``tensors``, which may hold NaN, by ``others``."""
    for bits, other in _alike(tensors, others):
        torch._foreach_mul_(bits, _like(bits[0], keep))
        torch._foreach_add_(bits, torch._foreach_mul(other, _like(bits[0], ~keep)))


def _subtract(bucket: Bucket, perturbed: Tensor) -> Tensor:
    """Subtract ``bucket.grads``, which hold -eps, from the weights, and return the norm of the move.

    Without a perturbation -eps may be NaN, and NaN times 0 is NaN: so its *bits* are multiplied by 0, which gives
    +0.0, and w - (+0.0) is w for every w (w + 0.0 would turn -0.0 into 0.0).
    """
    steps = [_bits(step) for step in bucket.grads]
    torch._foreach_mul_(steps, _like(steps[0], perturbed))
    if bucket.params[0].dtype in (torch.float32, torch.float64):
        torch._foreach_sub_(bucket.params, bucket.grads)
        return _norm(bucket.grads, 2)
    before = copies(bucket.params)  # a coarse dtype swallows small steps: measure what is left of them
    torch._foreach_sub_(bucket.params, bucket.grads)
    torch._foreach_sub_(before, bucket.params)
    return _norm(before, 2)


def _norm(tensors: list[Tensor], order: float) -> Tensor:
    """Norm over all the tensors together, accumulated in float32 or better."""
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, order, dtype=wide)), order)
    return norm


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    return value.to(device=tensor.device, dtype=tensor.dtype)


def _alike(*lists: Sequence[Tensor]) -> list[tuple[list[Tensor], ...]]:
    """Sort parallel lists, as bits, by the device and dtype of the first one."""
    parts: defaultdict[tuple[torch.device, torch.dtype], tuple[list[Tensor], ...]]
    parts = defaultdict(lambda: tuple([] for _ in lists))
    for row in zip(*lists, strict=True):
        bits = [_bits(tensor.detach()) for tensor in row]
        for part, tensor in zip(parts[bits[0].device, bits[0].dtype], bits, strict=True):
            part.append(tensor)
    return list(parts.values())


def _plain(tensor: Tensor) -> bool:
    """Whether every element has bits of its own."""
    views = tensor.is_conj() or tensor.is_neg() or tensor.is_quantized
    return not views and tensor.layout == torch.strided and (0 not in tensor.stride() or tensor.numel() < 2)


def _bits(tensor: Tensor) -> Tensor:
    """View of a tensor's bits as integers."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_BITS[tensor.dtype.itemsize])
