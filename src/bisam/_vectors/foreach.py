"""Arithmetic on lists of tensors of one device and dtype.

Every function dispatches a number of operations that does not depend on the number of tensors, and none reads a value
back to the host.

``torch._foreach_*`` is private by name only: torch's own optimizers and ``torch.nn.utils.clip_grad_norm_`` are built on
it, and nothing public dispatches one operation for many tensors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors  # as DDP's buckets are made
from torch.autograd.graph import increment_version

from .host import can_read

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
    "divided",
    "dot",
    "fisher_metric",
    "is_moderate",
    "lerp",
    "lerp_",
    "like",
    "magnitudes",
    "mul_",
    "multiply",
    "norm",
    "norms",
    "overlap",
    "replace_unless",
    "sign_power",
    "signs",
    "slice_norms",
    "split",
    "sub_",
]

#: Dtypes whose copies on the CPU keep every bit.
_COPIED_AS_THEY_ARE = frozenset(
    (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
)

#: A factor for each tensor, 0-dim or of its shape; None stands for 1, for one tensor or for all of them.
Scale = Sequence[Tensor | None] | None

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _in_place(operation: Callable[..., Any], tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> None:
    """Change tensors, and count their versions on: under a dispatch mode (a counter of FLOPs, say) torch does not."""
    operation(tensors, *args, **kwargs)
    if torch._C._len_torch_dispatch_stack():  # no public name tells of modes
        increment_version(tensors)


def multiply(tensors: list[Tensor], scale: Scale) -> None:
    """Multiply each tensor in place by its factor."""
    pairs = [(t, s) for t, s in zip(tensors, scale or (), strict=bool(scale)) if s is not None]
    if pairs:
        _in_place(torch._foreach_mul_, [t for t, _ in pairs], [s for _, s in pairs])


def magnitudes(tensors: list[Tensor], floor: float) -> list[Tensor]:
    """Return abs(t) + floor of each tensor."""
    sizes = list(torch._foreach_abs(tensors))
    if floor:
        _in_place(torch._foreach_add_, sizes, floor)
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
    _in_place(torch._foreach_abs_, tensors)
    _in_place(torch._foreach_pow_, tensors, exponent)
    _in_place(torch._foreach_mul_, tensors, directions)


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
    if len(tensors) == 1:
        return tensors[0].clone(memory_format=torch.contiguous_format).view(-1)
    row: Tensor = _flatten_dense_tensors(tensors)
    return row


def split(row: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Return views of a row's entries, in the shapes of ``tensors``."""
    views = _unflatten_dense_tensors(row, tensors)
    if 0 not in map(Tensor.numel, tensors):
        return list(views)
    return [view.view(tensor.shape) for view, tensor in zip(views, tensors, strict=True)]  # empty ones lose their shape


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Return a copy of each tensor, with the same bits."""
    return [copy for part in _in_parts(tensors) for copy in split(concatenate(part), part)]


def _in_parts(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Cut a list where 16 MiB are full: the allocator keeps pieces of that size, and the system takes back larger ones.

    So copies in rows do not meet fresh pages in every step.
    """
    most = 1 << 24
    if sum(map(Tensor.numel, tensors)) * tensors[0].itemsize <= most:
        return [list(tensors)]
    parts: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        size = tensor.nbytes
        if not parts or size > room:
            parts.append([])
            room = most
        parts[-1].append(tensor)
        room -= size
    return parts


def copy_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Overwrite ``tensors``, in their own dtype."""
    if tensors:
        _in_place(torch._foreach_copy_, tensors, others)


def add_(tensors: list[Tensor], others: list[Tensor], factor: Tensor | float = 1.0) -> None:
    """Add ``factor * others`` in place."""
    if not tensors:
        return
    if isinstance(factor, Tensor) and can_read(factor.device) and can_read(tensors[0].device):
        factor = float(factor)
    if not isinstance(factor, Tensor):
        _in_place(torch._foreach_add_, tensors, others, alpha=factor)
    elif len(tensors) == 1:
        _in_place(torch._foreach_addcmul_, tensors, others, [like(others[0], factor)])
    else:  # addcmul of many tensors would be one kernel each
        _in_place(torch._foreach_add_, tensors, torch._foreach_mul(others, like(others[0], factor)))


def sub_(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Subtract ``others`` in place."""
    _in_place(torch._foreach_sub_, tensors, others)


def mul_(tensors: list[Tensor], factor: Tensor | float) -> None:
    """Multiply by a number in place."""
    if tensors:
        _in_place(torch._foreach_mul_, tensors, like(tensors[0], factor) if isinstance(factor, Tensor) else factor)


def div_(tensors: list[Tensor], divisor: Tensor) -> None:
    """Divide by a 0-dim tensor in place."""
    if tensors:
        _in_place(torch._foreach_div_, tensors, like(tensors[0], divisor))


def divided(tensors: list[Tensor], divisor: float) -> list[Tensor]:
    """Return each tensor over a number."""
    return list(torch._foreach_div(tensors, divisor))


def lerp_(tensors: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Replace each tensor in place by (1 - weight) tensor + weight end."""
    if tensors:
        _in_place(torch._foreach_lerp_, tensors, ends, weight)


def lerp(tensors: list[Tensor], ends: list[Tensor], weight: float) -> list[Tensor]:
    """Return (1 - weight) tensor + weight end of each tensor."""
    return list(torch._foreach_lerp(tensors, ends, weight)) if tensors else []


def dot(tensors: list[Tensor], others: list[Tensor]) -> Tensor:
    """Inner product over all the tensors together: 0-dim, in float32 or better."""
    if can_read(tensors[0].device) and tensors[0].dtype == others[0].dtype and tensors[0].dtype.itemsize > 2:
        pieces = zip(_pieces(tensors), _pieces(others), strict=True)
        return torch.stack([torch.dot(a, b) for a, b in pieces]).sum()
    products = torch._foreach_mul(tensors, others)
    row = products[0] if len(products) == 1 else concatenate(list(products))
    return row.sum(dtype=accumulation_dtype(tensors[0].dtype))


def _pieces(tensors: list[Tensor]) -> Iterator[Tensor]:
    """Yield rows of all the entries, short enough to be summed in one go: views where a tensor fills some."""
    for part in _in_parts(tensors):
        row = part[0].reshape(-1) if len(part) == 1 else concatenate(part)
        yield from row.split(1 << 18)


def norms(tensors: list[Tensor], order: float = 2.0) -> tuple[Tensor, ...]:
    """Norm of each tensor: 0-dim ones, accumulated in float32 or better."""
    return torch._foreach_norm(tensors, order, dtype=accumulation_dtype(tensors[0].dtype))


def norm(tensors: list[Tensor], order: float = 2.0, *, double: bool = False) -> Tensor:
    """Norm over all the tensors together: 0-dim, accumulated in float32 or better; ``double``: in float64."""
    if double and order != torch.inf:
        return _norm_in_double(tensors, order)
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:  # the shards of this process may all be empty
        return tensors[0].new_zeros((), dtype=accumulation_dtype(tensors[0].dtype))
    if order == torch.inf and can_read(filled[0].device):  # twenty times as fast there as the norm
        ends = [end for piece in _pieces(filled) for end in torch.aminmax(piece)]
        return torch.stack(ends).abs().amax().to(accumulation_dtype(filled[0].dtype))
    if order == 2.0 and can_read(filled[0].device) and filled[0].dtype.itemsize > 2 and len(filled) > 1:
        return _norm_of_many(filled)
    each = norms(filled, order)
    total: Tensor = each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), order)
    return total


def _norm_of_many(tensors: list[Tensor]) -> Tensor:
    """L2 norm, in pieces that are short enough for float32; a kernel for each of many small tensors takes longer."""
    pieces: list[Tensor] = []
    for part in _in_parts(tensors):
        if len(part) == 1:
            pieces.append(torch.linalg.vector_norm(part[0]).view(1))
            continue
        row = concatenate(part)
        whole = len(row) - len(row) % 4096
        pieces.append(torch.linalg.vector_norm(row[:whole].view(-1, 4096), dim=1))
        pieces.append(torch.linalg.vector_norm(row[whole:]).view(1))
    total: Tensor = torch.linalg.vector_norm(torch.cat(pieces))
    return total


def _norm_in_double(tensors: list[Tensor], order: float) -> Tensor:
    """Norm in float64, which holds the squares of all that float32 holds."""
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:
        return tensors[0].new_zeros((), dtype=torch.float64)
    each = torch._foreach_norm(filled, order, dtype=torch.float64)
    total: Tensor = each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), order)
    return total


def is_moderate(length: float) -> bool:
    """Whether float32 holds the squares of all entries that count in a norm of this length."""
    return 1e-15 < length < 1e15


def replace_unless(keep: Tensor, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Where the 0-dim ``keep`` is false, overwrite ``tensors``, which may hold NaN, by ``others``."""
    if len(tensors) == 1:
        torch.where(keep.to(tensors[0].device), tensors[0], others[0], out=tensors[0])
    elif tensors:
        own, other = as_integers(tensors), as_integers(others)
        _in_place(torch._foreach_mul_, own, like(own[0], keep))
        _in_place(torch._foreach_add_, own, torch._foreach_mul(other, like(own[0], ~keep)))


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

    The tensors are written in place and keep their storage, also one that they were given meanwhile (``p.data = ...``).
    A copy on the CPU keeps all bits; on an accelerator they are read and written as integers. Those whose elements have
    no bits of their own (sparse, quantized or expanded views) are cloned one by one, and written back only if they have
    changed; those of inference mode, in which alone they can change, are written back in it.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._rows: list[tuple[list[Tensor], Tensor]] = []
        self._parts: list[_Bits] = []
        self._odd: list[tuple[Tensor, Tensor, int]] = []
        self._inference: list[tuple[Tensor, Tensor]] = []
        every = list(tensors)
        if any(map(Tensor.is_inference, every)):
            self._inference = [(t, t.detach().clone()) for t in every if t.is_inference()]
            every = [tensor for tensor in every if not tensor.is_inference()]
        if every:
            with torch.no_grad():
                for part in _alike(every):
                    self._keep(part)

    def _keep(self, part: list[Tensor]) -> None:
        if not _have_bits(part):
            alone = [tensor for tensor in part if not _have_bits([tensor])]
            self._odd += [(t, t.detach().clone(), t._version) for t in alone]  # no public way to see a change
            part = [tensor for tensor in part if _have_bits([tensor])]
        if not part:
            return
        if can_read(part[0].device) and part[0].dtype in _COPIED_AS_THEY_ARE:
            self._rows += [(piece, concatenate(piece)) for piece in _in_parts(part)]
        else:
            self._parts.append(_Bits(part))

    def restore(self) -> None:
        """Write the copies back."""
        if self._inference:
            with torch.inference_mode():
                for tensor, copy in self._inference:
                    tensor.copy_(copy)
        if not (self._rows or self._parts or self._odd):
            return
        with torch.no_grad():
            for live, row in self._rows:
                _in_place(torch._foreach_copy_, live, split(row, live))
            for part in self._parts:
                part.restore()
            for tensor, copy, version in self._odd:
                if tensor._version != version:
                    tensor.copy_(copy)


class _Bits:
    """Copies of the bits of tensors of one device and dtype, as integers."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors, self._places = tensors, list(map(Tensor.data_ptr, tensors))
        self._live = as_integers([tensor.detach() for tensor in tensors])
        self._saved = list(torch._foreach_add(self._live, 0))

    def restore(self) -> None:
        if list(map(Tensor.data_ptr, self._tensors)) != self._places:  # they have other storage now
            self._live = as_integers([tensor.detach() for tensor in self._tensors])
        _in_place(torch._foreach_copy_, self._live, self._saved)


def overlap(tensors: Sequence[Tensor]) -> bool:
    """Whether two tensors, or two elements of one, lie in one place, so that no work may be done in place.

    ``torch.autograd.grad`` returns such ones, and people put them into ``p.grad``.
    """
    places = list(filter(None, map(Tensor.data_ptr, tensors)))  # 0 where a tensor is empty
    if len(set(places)) < len(places):
        return True
    return not all(map(Tensor.is_contiguous, tensors)) and any(0 in t.stride() and t.numel() > 1 for t in tensors)


def _alike(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Sort tensors by device and dtype."""
    if len({tensor.dtype for tensor in tensors}) == 1 and len({tensor.device for tensor in tensors}) == 1:
        return [tensors]
    parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        parts.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return list(parts.values())


def _have_bits(tensors: list[Tensor]) -> bool:
    """Whether the elements of tensors of one dtype are their own, each in a place of its own."""
    if {tensor.layout for tensor in tensors} != {torch.strided} or tensors[0].is_quantized:
        return False
    if any(map(Tensor.is_neg, tensors)) or (tensors[0].is_complex() and any(map(Tensor.is_conj, tensors))):
        return False
    return all(map(Tensor.is_contiguous, tensors)) or all(0 not in t.stride() or t.numel() < 2 for t in tensors)
