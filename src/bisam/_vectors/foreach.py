"""Arithmetic on lists of tensors of one device and dtype.

Every function dispatches a number of operations that does not depend on the number of tensors, and none reads a value
back to the host.

``torch._foreach_*`` is private by name only: torch's own optimizers and ``torch.nn.utils.clip_grad_norm_`` are built on
it, and nothing public dispatches one operation for many tensors.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = [
    "Scale",
    "Snapshot",
    "accumulation_dtype",
    "add_",
    "as_integers",
    "concatenate",
    "copies",
    "copy_",
    "div_",
    "dot",
    "fisher_metric",
    "lerp_",
    "like",
    "magnitudes",
    "mul_",
    "multiply",
    "norm",
    "norms",
    "replace_unless",
    "sign_power",
    "signs",
    "slice_norms",
    "split",
    "sub_",
]

#: A factor for each tensor, 0-dim or of its shape; None stands for 1, for one tensor or for all of them.
Scale = Sequence[Tensor | None] | None

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def multiply(tensors: list[Tensor], scale: Scale) -> None:
    """Multiply each tensor in place by its factor."""
    pairs = [(t, s) for t, s in zip(tensors, scale or (), strict=bool(scale)) if s is not None]
    if pairs:
        torch._foreach_mul_([t for t, _ in pairs], [s for _, s in pairs])


def magnitudes(tensors: list[Tensor], floor: float) -> list[Tensor]:
    """Return abs(t) + floor of each tensor."""
    sizes = list(torch._foreach_abs(tensors))
    if floor:
        torch._foreach_add_(sizes, floor)
    return sizes


def fisher_metric(gradients: list[Tensor], eta: float, unit: Tensor) -> list[Tensor]:
    """Return (1 + eta (unit g)^2)^(-1/2) of each gradient, squared in float32 or better."""
    row = concatenate(gradients).to(accumulation_dtype(gradients[0].dtype)) * like(gradients[0], unit, wide=True)
    metric = torch.addcmul(row.new_ones(()), row, row, value=eta).rsqrt_()
    return split(metric.to(gradients[0].dtype), gradients)


def signs(tensors: list[Tensor]) -> list[Tensor]:
    """Return the sign of each entry: -1, 0, 1, or NaN."""
    return list(torch._foreach_sign(tensors))


def sign_power(tensors: list[Tensor], exponent: float) -> None:
    """Replace each entry t by sign(t) abs(t)^exponent."""
    directions = signs(tensors)
    torch._foreach_abs_(tensors)
    torch._foreach_pow_(tensors, exponent)
    torch._foreach_mul_(tensors, directions)


def slice_norms(tensors: list[Tensor], floor: float) -> list[Tensor]:
    """Return tensors of the same shapes, filled with the l2 norm of each slice along the first axis, plus ``floor``.

    A slice of a vector, or a scalar, is one entry, so its norm is the magnitude. Norms are taken in float32 or better.
    """
    device = tensors[0].device
    counts = torch.tensor([t.shape[0] if t.dim() else 1 for t in tensors], device=device)
    sizes = torch.tensor([t[0].numel() if t.dim() and len(t) else 1 for t in tensors], device=device)
    slices, entries = sum(len(t) if t.dim() else 1 for t in tensors), sum(t.numel() for t in tensors)
    lengths = torch.repeat_interleave(sizes, counts, output_size=slices)
    row = concatenate(tensors)
    wide = row.to(accumulation_dtype(row.dtype))
    largest = wide.abs().amax() if entries else wide.new_ones(())
    unit = torch.where(largest > 0, largest, 1)  # squares of tiny weights would vanish
    squares = torch.segment_reduce((wide / unit).square(), "sum", lengths=lengths)
    filled = torch.repeat_interleave(squares.sqrt() * unit + floor, lengths, output_size=entries)
    return split(filled.to(row.dtype), tensors)


def concatenate(tensors: list[Tensor]) -> Tensor:
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
        torch._foreach_addcmul_(tensors, others, [like(others[0], factor)])
    else:  # addcmul of many tensors would be one kernel each
        torch._foreach_add_(tensors, torch._foreach_mul(others, like(others[0], factor)))


def sub_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Subtract ``others`` in place."""
    torch._foreach_sub_(tensors, others)


def mul_(tensors: list[Tensor], factor: Tensor | float) -> None:
    """Multiply by a number in place."""
    if tensors:
        torch._foreach_mul_(tensors, like(tensors[0], factor) if isinstance(factor, Tensor) else factor)


def div_(tensors: list[Tensor], divisor: Tensor) -> None:
    """Divide by a 0-dim tensor in place."""
    if tensors:
        torch._foreach_div_(tensors, like(tensors[0], divisor))


def lerp_(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Replace each tensor in place by (1 - weight) tensor + weight end."""
    if tensors:
        torch._foreach_lerp_(tensors, ends, weight)


def dot(tensors: list[Tensor], others: list[Tensor]) -> Tensor:
    """Inner product over all the tensors together: 0-dim, summed pairwise in float32 or better."""
    products = torch._foreach_mul(tensors, others)
    row = products[0] if len(products) == 1 else concatenate(list(products))
    return row.sum(dtype=accumulation_dtype(tensors[0].dtype))


def norms(tensors: list[Tensor], order: float = 2.0) -> tuple[Tensor, ...]:
    """Norm of each tensor: 0-dim ones, accumulated in float32 or better."""
    return torch._foreach_norm(tensors, order, dtype=accumulation_dtype(tensors[0].dtype))


def norm(tensors: list[Tensor], order: float = 2.0) -> Tensor:
    """Norm over all the tensors together: 0-dim, accumulated in float32 or better."""
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:  # the shards of this process may all be empty
        return tensors[0].new_zeros((), dtype=accumulation_dtype(tensors[0].dtype))
    each = norms(filled, order)
    total: Tensor = each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), order)
    return total


def replace_unless(keep: Tensor, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Where the 0-dim ``keep`` is false, overwrite ``tensors``, which may hold NaN, by ``others``."""
    if len(tensors) == 1:
        torch.where(keep.to(tensors[0].device), tensors[0], others[0], out=tensors[0])
    elif tensors:
        own, other = as_integers(tensors), as_integers(others)
        torch._foreach_mul_(own, like(own[0], keep))
        torch._foreach_add_(own, torch._foreach_mul(other, like(own[0], ~keep)))


def like(tensor: Tensor, value: Tensor, *, wide: bool = False) -> Tensor:
    """Return a 0-dim ``value`` on the device and in the dtype of ``tensor``; ``wide``: in float32 or better."""
    return value.to(device=tensor.device, dtype=accumulation_dtype(tensor.dtype) if wide else tensor.dtype)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``, or float32 if that is wider: what norms and sums are taken in."""
    return torch.promote_types(dtype, torch.float32)


def as_integers(tensors: Sequence[Tensor]) -> list[Tensor]:
    """View the bits of tensors of one dtype as integers, which no rounding and no flushing of subnormals touches."""
    if not tensors:
        return []
    if tensors[0].is_complex():
        tensors = [torch.view_as_real(tensor) for tensor in tensors]
    kind = _INTEGERS[tensors[0].dtype.itemsize]
    return [tensor.view(kind) for tensor in tensors]


class Snapshot:
    """Copies of tensors that come back bit for bit: -0.0, subnormal numbers and NaN payloads included.

    The tensors are read and written as integers and keep their storage. Those whose elements have no bits of their own
    (sparse, quantized, conjugate or expanded views) are cloned one by one, and written back only if they have changed.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        self._odd: list[tuple[Tensor, Tensor, int]] = []
        for tensor in tensors:
            own = tensor.detach()
            dense = own.layout == torch.strided and not (own.is_conj() or own.is_neg() or own.is_quantized)
            if dense and (own.is_contiguous() or 0 not in own.stride() or own.numel() < 2):
                alike.setdefault((own.device, own.dtype), []).append(own)
            else:
                self._odd.append((tensor, own.clone(), tensor._version))  # no public way to see an in-place change
        self._parts: list[tuple[list[Tensor], list[Tensor]]] = []
        for part in alike.values():
            bits = as_integers(part)
            self._parts.append((bits, list(torch._foreach_add(bits, 0))))

    def restore(self) -> None:
        """Write the copies back."""
        for live, saved in self._parts:
            torch._foreach_copy_(live, saved)
        for tensor, copy, version in self._odd:
            if tensor._version != version:
                tensor.copy_(copy)
