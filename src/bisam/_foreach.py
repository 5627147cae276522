"""Arithmetic on lists of tensors of one device and dtype: the only place that calls ``torch._foreach_*``.

Every function dispatches a number of operations that does not depend on how many tensors there are, and none reads a
value back to the host.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = [
    "Scale",
    "Snapshot",
    "add_",
    "bits",
    "copies",
    "copy_",
    "div_",
    "dot",
    "fisher_metric",
    "flat",
    "lerp_",
    "magnitudes",
    "mul_",
    "multiply",
    "norm",
    "norms",
    "product",
    "replace_unless",
    "split",
    "sub_",
    "wide",
]

#: A tensor to multiply each parameter by, 0-dim or of its shape; None stands for 1, for a parameter or for them all.
Scale = Sequence[Tensor | None] | None

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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


def fisher_metric(grads: list[Tensor], eta: float) -> list[Tensor]:
    """Return (1 + eta g^2)^(-1/2) of each gradient, squared in float32 or better."""
    if not grads:
        return []
    row = flat(grads).to(wide(grads[0].dtype))
    metric = torch.addcmul(row.new_ones(()), row, row, value=eta).rsqrt_()
    return split(metric.to(grads[0].dtype), grads)


def product(one: Scale, other: Scale) -> Scale:
    """Return the scale that multiplies by both."""
    if one is None or other is None:
        return other if one is None else one
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    products = iter(torch._foreach_mul([a for a, _ in both], [b for _, b in both]) if both else ())
    return [b if a is None else a if b is None else next(products) for a, b in zip(one, other, strict=True)]


def flat(tensors: list[Tensor]) -> Tensor:
    """Return a copy of all entries in one row."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split(row: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Return views of a row's entries, in the shapes of ``tensors``."""
    return [p.view_as(t) for p, t in zip(row.split([t.numel() for t in tensors]), tensors, strict=True)]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Return a copy of each tensor."""
    return list(torch._foreach_mul(tensors, 1.0)) if tensors else []


def copy_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Overwrite ``tensors``, in their own dtype."""
    if tensors:
        torch._foreach_copy_(tensors, others)


def add_(tensors: list[Tensor], others: list[Tensor], factor: Tensor | float = 1.0) -> None:
    """Add ``factor * others`` in place."""
    if not tensors:
        return
    if not isinstance(factor, Tensor):
        torch._foreach_add_(tensors, others, alpha=factor)
    elif len(tensors) == 1:
        torch._foreach_addcmul_(tensors, others, [beside(others[0], factor)])
    else:  # of many tensors that would be one kernel each
        torch._foreach_add_(tensors, torch._foreach_mul(others, beside(others[0], factor)))


def sub_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Subtract ``others`` in place."""
    torch._foreach_sub_(tensors, others)


def mul_(tensors: list[Tensor], factor: Tensor | float) -> None:
    """Multiply by a number in place."""
    if tensors:
        torch._foreach_mul_(tensors, beside(tensors[0], factor) if isinstance(factor, Tensor) else factor)


def div_(tensors: list[Tensor], divisor: Tensor) -> None:
    """Divide by a 0-dim tensor in place."""
    if tensors:
        torch._foreach_div_(tensors, beside(tensors[0], divisor))


def lerp_(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Replace each tensor in place by (1 - weight) tensor + weight end."""
    if tensors:
        torch._foreach_lerp_(tensors, ends, weight)


def dot(tensors: list[Tensor], others: list[Tensor]) -> Tensor:
    """Inner product over all the tensors together: 0-dim, summed pairwise in float32 or better."""
    products = torch._foreach_mul(tensors, others)
    row = products[0] if len(products) == 1 else flat(list(products))
    return row.sum(dtype=wide(tensors[0].dtype))


def norms(tensors: list[Tensor], order: float = 2.0) -> tuple[Tensor, ...]:
    """Norm of each tensor: 0-dim ones, accumulated in float32 or better."""
    return torch._foreach_norm(tensors, order, dtype=wide(tensors[0].dtype))


def norm(tensors: list[Tensor], order: float = 2.0) -> Tensor:
    """Norm over all the tensors together: 0-dim, accumulated in float32 or better."""
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:  # this process's shards may all be empty
        return tensors[0].new_zeros((), dtype=wide(tensors[0].dtype))
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms(filled, order)), order)
    return total


def replace_unless(keep: Tensor, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Where the 0-dim ``keep`` is false, overwrite ``tensors``, which may hold NaN, by ``others``."""
    if len(tensors) == 1:
        torch.where(keep.to(tensors[0].device), tensors[0], others[0], out=tensors[0])
        return
    for own, other in _alike(tensors, others):
        torch._foreach_mul_(own, beside(own[0], keep))
        torch._foreach_add_(own, torch._foreach_mul(other, beside(own[0], ~keep)))


def beside(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a 0-dim ``value`` on the device and in the dtype of ``tensor``."""
    return value.to(device=tensor.device, dtype=tensor.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``, or float32 if that is wider."""
    return torch.promote_types(dtype, torch.float32)


def bits(tensor: Tensor) -> Tensor:
    """View of a tensor's bits as integers."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_BITS[tensor.dtype.itemsize])


def _alike(*lists: Sequence[Tensor]) -> list[tuple[list[Tensor], ...]]:
    """Sort parallel lists, as bits, by the device and dtype of the first one."""
    parts: defaultdict[tuple[torch.device, torch.dtype], tuple[list[Tensor], ...]]
    parts = defaultdict(lambda: tuple([] for _ in lists))
    for row in zip(*lists, strict=True):
        seen = [bits(tensor.detach()) for tensor in row]
        for part, tensor in zip(parts[seen[0].device, seen[0].dtype], seen, strict=True):
            part.append(tensor)
    return list(parts.values())


def _plain(tensor: Tensor) -> bool:
    """Whether every element has bits of its own."""
    views = tensor.is_conj() or tensor.is_neg() or tensor.is_quantized
    return not views and tensor.layout == torch.strided and (0 not in tensor.stride() or tensor.numel() < 2)
