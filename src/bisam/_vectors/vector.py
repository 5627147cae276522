"""Vectors over parameters: one gradient as one vector, in whatever tensors, devices, dtypes and shards it lies.

Every operation dispatches a number of kernels that depends on the number of parts, never on the number of parameters,
and none reads a value back to the host.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import foreach
from .shards import Shards, local, reduce, shards_of

__all__ = ["Part", "Vector", "real", "reduction_device", "unit_of"]


@dataclass
class Part:
    """Entries of a vector that lie on one device, have one dtype, and are sharded in one way.

    Attributes:
        params: the parameters that the entries belong to.
        tensors: the entries of each, as they lie in this process; complex ones as pairs of reals.
        shards: how they are sharded over processes; None where they are whole.
        row: the one tensor that ``tensors`` are consecutive views of; None where they lie apart.
    """

    params: list[Tensor]
    tensors: list[Tensor]
    shards: Shards | None
    row: Tensor | None = field(default=None, kw_only=True)

    @property
    def blocks(self) -> list[Tensor]:
        """The entries in as few tensors as possible."""
        return self.tensors if self.row is None else [self.row]

    def as_row(self) -> Tensor:
        """Return the entries in one row: shared if they lie in one, else copied."""
        return foreach.concatenate(self.tensors) if self.row is None else self.row

    def in_row(self, row: Tensor) -> "Part":
        """Return the part of the same parameters whose entries are views of ``row``."""
        return Part(self.params, foreach.split(row, self.tensors), self.shards, row=row)

    def norm(self, order: float = 2.0) -> Tensor:
        """Norm over all shards, ``torch.inf`` for the largest magnitude: 0-dim, in float32 or better."""
        here = foreach.norm(self.tensors, order)  # tensor by tensor: the norm of a long row adds up rounding errors
        if self.shards is None:
            return here
        if order == torch.inf:  # a maximum over processes may drop NaN, but not infinity
            return reduce(torch.where(here.isfinite(), here, torch.inf), self.shards, "max")
        return reduce(here.pow(order), self.shards, "sum").pow(1 / order)


class Vector:
    """Parts that together are one vector. Operations between two vectors need the same parameters in the same order.

    Copies lie in one row per part. One kernel then changes the whole part, and can also choose between two vectors, or
    multiply and add, on the device; lists of tensors cannot.

    Attributes:
        parts: what it is made of, one for each device, dtype and sharding.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    @classmethod
    def of(cls, entries: Iterable[tuple[Tensor, Tensor]]) -> "Vector":
        """Sort (parameter, its entries) into parts; the entries are shared, not copied."""
        parts: dict[tuple[torch.device, torch.dtype, Shards | None], Part] = {}
        for param, entry in entries:
            shards = shards_of(param)
            here = real(local(entry, shards))
            part = parts.setdefault((here.device, here.dtype, shards), Part([], [], shards))
            part.params.append(param)
            part.tensors.append(here)
        return cls(list(parts.values()))

    @property
    def params(self) -> list[Tensor]:
        """The parameters, part by part."""
        return [param for part in self.parts for param in part.params]

    def copy(self) -> "Vector":
        """Return a copy in float32 or better, in rows."""
        rows = [foreach.concatenate(part.blocks) for part in self.parts]
        return self.of_rows([row.to(foreach.accumulation_dtype(row.dtype)) for row in rows])

    def at_least_float32(self) -> "Vector":
        """Return this vector if it is in float32 or better, else a copy that is."""
        dtypes = {tensor.dtype for part in self.parts for tensor in part.tensors[:1]}
        return self if all(foreach.accumulation_dtype(dtype) == dtype for dtype in dtypes) else self.copy()

    def only(self, params: set[Tensor]) -> "Vector":
        """Return the entries of ``params``, shared."""
        if params.issuperset(self.params):
            return self
        parts = []
        for part in self.parts:
            left = [(p, t) for p, t in zip(part.params, part.tensors, strict=True) if p in params]
            if left:
                parts.append(Part([p for p, _ in left], [t for _, t in left], part.shards))
        return Vector(parts)

    def gradients(self) -> "Vector":
        """Return the gradients of the same parameters, shared."""
        return Vector(
            [Part(p.params, [real(local(_gradient(q), p.shards)) for q in p.params], p.shards) for p in self.parts]
        )

    def rows(self) -> list[Tensor]:
        """Return each part's entries in one row: shared if they lie in one, else copied."""
        return [part.as_row() for part in self.parts]

    def of_rows(self, rows: Sequence[Tensor]) -> "Vector":
        """Return the vector over the same parameters whose entries are views of ``rows``."""
        return Vector([part.in_row(row) for part, row in zip(self.parts, rows, strict=True)])

    def copy_(self, other: "Vector") -> None:
        """Overwrite the entries by those of ``other``."""
        for mine, theirs in self._pairs(other):
            foreach.copy_(mine, theirs)

    def add_(self, other: "Vector", factor: Tensor | float = 1.0) -> None:
        """Add ``factor * other``; a tensor is 0-dim."""
        for mine, theirs in self._pairs(other):
            foreach.add_(mine, theirs, factor)

    def mul_(self, factor: Tensor | float) -> None:
        """Multiply by a number or a 0-dim tensor."""
        for part in self.parts:
            foreach.mul_(part.blocks, factor)

    def div_(self, divisor: Tensor) -> None:
        """Divide by a 0-dim tensor."""
        for part in self.parts:
            foreach.div_(part.blocks, divisor)

    def sign_power_(self, exponent: float) -> None:
        """Replace each entry v by sign(v) abs(v)^exponent."""
        for part in self.parts:
            foreach.sign_power(part.blocks, exponent)

    def lerp_(self, other: "Vector", weight: float) -> None:
        """Become (1 - weight) self + weight other."""
        for mine, theirs in self._pairs(other):
            foreach.lerp_(mine, theirs, weight)

    def lerp(self, other: "Vector", weight: Tensor) -> "Vector":
        """Return (1 - weight) self + weight other, in rows; ``weight`` is 0-dim, and 1 gives ``other`` itself."""
        both = zip(self.rows(), other.rows(), strict=True)
        return self.of_rows([torch.lerp(a, b.to(a.dtype), foreach.like(a, weight)) for a, b in both])

    def plus(self, other: "Vector", factor: Tensor) -> "Vector":
        """Return self + factor other, in rows; ``factor`` is 0-dim."""
        both = zip(self.rows(), other.rows(), strict=True)
        return self.of_rows([torch.addcmul(a, b.to(a.dtype), foreach.like(a, factor)) for a, b in both])

    def replace_unless_(self, keep: Tensor, other: "Vector") -> None:
        """Where the 0-dim ``keep`` is false, become ``other``; nothing is multiplied, so NaN does not spread."""
        for mine, theirs in self._pairs(other):
            foreach.replace_unless(keep, mine, theirs)

    def dot(self, other: "Vector") -> Tensor:
        """Inner product: 0-dim, in float32 or better."""
        total = [
            reduce(foreach.dot(mine, theirs), part.shards, "sum")
            for part, (mine, theirs) in zip(self.parts, self._pairs(other), strict=True)
        ]
        return _stacked(total).sum()

    def norm(self, order: float = 2.0) -> Tensor:
        """Norm over all parts, the l2 norm by default: 0-dim, in float32 or better."""
        norm: Tensor = torch.linalg.vector_norm(_stacked([part.norm(order) for part in self.parts]), order)
        return norm

    def max_abs(self) -> Tensor:
        """Largest magnitude, NaN or infinite where an entry is: 0-dim."""
        return _stacked([part.norm(torch.inf) for part in self.parts]).amax()

    def _pairs(self, other: "Vector") -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            apart = mine.row is None or theirs.row is None
            yield (mine.tensors, theirs.tensors) if apart else (mine.blocks, theirs.blocks)


def unit_of(vector: Vector, max_abs: Tensor) -> Tensor:
    """Return a unit for ``vector``: a power of two about as large as ``max_abs``, its largest magnitude.

    In that unit neither products nor squares of entries overflow, they vanish only where they do not count, and nothing
    is rounded.
    """
    narrow = any(part.tensors[0].dtype == torch.float32 for part in vector.parts)
    most = 126 if narrow else 1022  # both the unit and its inverse must exist in that dtype
    exponent = torch.floor(torch.log2(max_abs)).clamp(-most, most)
    return torch.where((max_abs > 0) & max_abs.isfinite(), torch.exp2(exponent), 1)


def _gradient(param: Tensor) -> Tensor:
    if param.grad is None:
        raise ValueError(f"a parameter of shape {tuple(param.shape)} has no gradient")
    return param.grad


def real(tensor: Tensor) -> Tensor:
    """View complex numbers as pairs of reals."""
    return torch.view_as_real(tensor.resolve_conj().resolve_neg()) if tensor.is_complex() else tensor


def reduction_device(devices: Iterable[torch.device]) -> torch.device:
    """Return the device on which numbers of several devices are reduced: the first accelerator, else the CPU."""
    found = list(devices)
    return next((device for device in found if device.type != "cpu"), found[0])


def _stacked(numbers: list[Tensor]) -> Tensor:
    """Stack 0-dim numbers of several devices and dtypes; of none, a zero."""
    if not numbers:
        return torch.zeros(1)
    place = reduction_device(number.device for number in numbers)
    return torch.stack([number.to(place) for number in numbers])
