"""Vectors over parameters: one gradient as one vector, in whatever tensors, devices, dtypes and shards it lies.

Every operation dispatches a number of kernels that depends on the number of parts, never on the number of parameters,
and none reads a value back to the host.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import foreach
from .host import can_read
from .shards import Shards, local, reduce, shards_of

__all__ = ["ParamInfo", "Part", "Vector", "are_plain", "norm_of", "real", "reduction_device", "unit_of"]


#: Entries of a tensor for which a kernel of its own pays, on average.
_LARGE = 1 << 16


class Part:
    """Entries of a vector that lie on one device, have one dtype, and are sharded in one way.

    Example:
        >>> from bisam.choice import Vector
        >>> param = torch.zeros(2)
        >>> Vector.of([(param, torch.tensor([3.0, 4.0]))]).parts[0].tensors
        [tensor([3., 4.])]

    Args:
        params: the parameters that the entries belong to.
        tensors: the entries of each, as they lie in this process; complex ones as pairs of reals.
        shards: how they are sharded over processes; None where they are whole.
        row: the one tensor that ``tensors`` are consecutive views of; None where they lie apart.
        fresh: whether ``tensors`` were made for this part.
    """

    def __init__(
        self,
        params: list[Tensor],
        tensors: list[Tensor],
        shards: Shards | None,
        *,
        row: Tensor | None = None,
        fresh: bool = False,
    ) -> None:
        self.params, self.shards, self.row, self.fresh = params, shards, row, fresh
        self._entries = tensors
        self._given = False
        self._length: Length | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """The entries of each parameter. Change them in place, or give the part another list.

        Who holds them may change them at any time, also where nobody sees it (``.data``): from here on nothing is
        remembered of them.
        """
        self._given = True
        return self.entries

    @tensors.setter
    def tensors(self, tensors: list[Tensor]) -> None:
        self._replace(tensors)

    def _replace(self, tensors: list[Tensor]) -> None:
        self._entries, self._given, self.row, self.fresh = tensors, True, None, False

    @property
    def entries(self) -> list[Tensor]:
        """What :attr:`tensors` are, for those who are done with them at once."""
        return self._entries

    @property
    def kind(self) -> tuple[torch.device, torch.dtype]:
        """Device and dtype of the entries."""
        return _kind(self._entries[0])

    @property
    def blocks(self) -> list[Tensor]:
        """The entries in as few tensors as possible."""
        return self.entries if self.row is None else [self.row]

    def as_row(self) -> Tensor:
        """Return the entries in one row: shared if they lie in one, else copied."""
        return foreach.concatenate(self.entries) if self.row is None else self.row

    def in_row(self, row: Tensor) -> "Part":
        """Return the part of the same parameters whose entries are views of ``row``."""
        return Part(self.params, foreach.split(row, self.entries), self.shards, row=row)

    def lerp(self, ends: list[Tensor], weight: float) -> "Part":
        """Return (1 - weight) self + weight ends: in a row where the tensors are small, as many kernels are dear."""
        if sum(map(Tensor.numel, self.entries)) < _LARGE * len(self.entries):
            blend = self.in_row(self.as_row().clone() if self.row is not None else self.as_row())
            foreach.lerp_(blend.entries, ends, weight)
            return blend
        return Part(self.params, foreach.lerp(self.entries, ends, weight), self.shards, fresh=True)

    def norm(self, order: float = 2.0) -> Tensor:
        """Norm over all shards, ``torch.inf`` for the largest magnitude: 0-dim, in float32 or better."""
        return norm_of(self.entries, self.shards, order) if order != 2.0 else self._l2_norm(self.entries)

    def _l2_norm(self, tensors: list[Tensor]) -> Tensor:
        """L2 norm of the entries, taken once until they change."""
        if self._given:
            return norm_of(tensors, self.shards)
        versions = list(map(_version, tensors))
        if self._length is None or self._length.tensors is not tensors or self._length.versions != versions:
            self._length = Length(norm_of(tensors, self.shards), tensors, versions)
        return self._length.norm


#: No public name tells whether a tensor was changed in place.
_version = operator.attrgetter("_version")


class Length(NamedTuple):
    """A norm, of which tensors, and their versions when it was taken."""

    norm: Tensor
    tensors: list[Tensor]
    versions: list[int]


class Vector:
    """Parts that together are one vector. Operations between two vectors need the same parameters in the same order.

    Copies lie in one row per part. One kernel then changes the whole part, and can also choose between two vectors, or
    multiply and add, on the device; lists of tensors cannot.

    Example:
        >>> from bisam.choice import Vector
        >>> param = torch.zeros(2)
        >>> vector = Vector.of([(param, torch.tensor([3.0, 4.0]))])
        >>> float(vector.norm())
        5.0

    Attributes:
        parts: what it is made of, one for each device, dtype and sharding.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self._watched: list[list[int]] | None = None

    @classmethod
    def of(cls, entries: Iterable[tuple[Tensor, Tensor]]) -> "Vector":
        """Sort (parameter, its entries) into parts; the entries are shared, not copied."""
        both = list(entries)
        params, tensors = [param for param, _ in both], [entry for _, entry in both]
        if are_plain(params) and set(map(type, tensors)) == {Tensor} and len(set(map(_kind, tensors))) == 1:
            return cls([Part(params, tensors, None)])  # mostly so, and told without a look at each
        parts: dict[tuple[torch.device, torch.dtype, Shards | None], Part] = {}
        for param, entry in both:
            shards = shards_of(param)
            here = real(local(entry, shards))
            part = parts.setdefault((here.device, here.dtype, shards), Part([], [], shards))
            part.params.append(param)
            part.entries.append(here)
        return cls(list(parts.values()))

    @property
    def on_host(self) -> bool:
        """Whether numbers of it can be read without waiting, and its entries hold what float32 holds."""
        kinds = [part.kind for part in self.parts]
        whole = all(part.shards is None for part in self.parts)
        return whole and all(can_read(device) and dtype.itemsize > 2 for device, dtype in kinds)

    @property
    def lies_alone(self) -> bool:
        """Whether its entries lie in tensors that were made for it."""
        return all(part.row is not None or part.fresh for part in self.parts)

    @property
    def params(self) -> list[Tensor]:
        """The parameters, part by part."""
        return [param for part in self.parts for param in part.params]

    def watch(self) -> None:
        """Remember the entries' versions, for :meth:`first_changed`."""
        self._watched = self._versions()

    def first_changed(self) -> Tensor | None:
        """Return the first parameter whose entries somebody has changed in place since :meth:`watch`, if any."""
        if self._watched is None or self._versions() == self._watched:
            return None
        now = [version for part in self._versions() for version in part]
        before = [version for part in self._watched for version in part]
        return next(p for p, old, new in zip(self.params, before, now, strict=True) if old != new)

    def _versions(self) -> list[list[int]]:
        return [list(map(_version, part.entries)) for part in self.parts]

    def copy(self) -> "Vector":
        """Return a copy in float32 or better, in rows."""
        rows = [foreach.concatenate(part.blocks) for part in self.parts]
        return self.of_rows([row.to(foreach.accumulation_dtype(row.dtype)) for row in rows])

    def at_least_float32(self) -> "Vector":
        """Return this vector if it is in float32 or better, else a copy that is."""
        dtypes = {part.kind[1] for part in self.parts}
        return self if all(foreach.accumulation_dtype(dtype) == dtype for dtype in dtypes) else self.copy()

    def only(self, params: set[Tensor]) -> "Vector":
        """Return the entries of ``params``, shared."""
        if params.issuperset(self.params):
            return self
        parts = []
        for part in self.parts:
            left = [(p, t) for p, t in zip(part.params, part.entries, strict=True) if p in params]
            if left:
                parts.append(Part([p for p, _ in left], [t for _, t in left], part.shards))
        return Vector(parts)

    def weights(self) -> "Vector":
        """Return the same parameters' weights, shared."""
        return Vector(
            [Part(p.params, [real(local(q.detach(), p.shards)) for q in p.params], p.shards) for p in self.parts]
        )

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
        if self.on_host and other.on_host and can_read(weight.device):
            if weight == 1:
                return other.copy()
            parts = zip(self.parts, other.parts, strict=True)
            return Vector([mine.lerp(theirs.entries, float(weight)) for mine, theirs in parts])
        both = zip(self.rows(), other.rows(), strict=True)
        return self.of_rows([torch.lerp(a, b.to(a.dtype), foreach.like(a, weight)) for a, b in both])

    def plus(self, other: "Vector", factor: Tensor) -> "Vector":
        """Return self + factor other, in rows; ``factor`` is 0-dim."""
        if self.on_host:
            sum_ = self.copy()
            sum_.add_(other, factor)
            return sum_
        both = zip(self.rows(), other.rows(), strict=True)
        return self.of_rows([torch.addcmul(a, b.to(a.dtype), foreach.like(a, factor)) for a, b in both])

    def blend_(self, own: Tensor | float, other: "Vector", factor: Tensor | float) -> None:
        """Become own self + factor other."""
        self.mul_(own)
        self.add_(other, factor)

    def replace_unless_(self, keep: Tensor, other: "Vector") -> None:
        """Where the 0-dim ``keep`` is false, become ``other``; nothing is multiplied, so NaN does not spread."""
        if self.on_host and other.on_host and can_read(keep.device):
            if not keep:
                self.copy_(other)
            return
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
        if len(self.parts) == 1:
            return self.parts[0].norm(order)
        norm: Tensor = torch.linalg.vector_norm(_stacked([part.norm(order) for part in self.parts]), order)
        return norm

    def max_abs(self) -> Tensor:
        """Largest magnitude, NaN or infinite where an entry is: 0-dim."""
        return _stacked([part.norm(torch.inf) for part in self.parts]).amax()

    def is_finite(self) -> Tensor:
        """Whether every entry is: 0-dim."""
        if self.on_host and math.isfinite(float(self.norm())):
            return torch.ones((), dtype=torch.bool, device="cpu")
        return self.max_abs().isfinite()

    def number(self, value: float) -> Tensor:
        """Return a 0-dim ``value`` where reductions of this vector lie, in the dtype that they have."""
        dtypes = [foreach.accumulation_dtype(part.kind[1]) for part in self.parts]
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        place = reduction_device(part.kind[0] for part in self.parts) if self.parts else torch.device("cpu")
        return torch.full((), value, dtype=wide, device=place)

    def is_zero(self) -> Tensor:
        """Whether every entry is: 0-dim."""
        if self.on_host and self.is_moderate:
            return torch.zeros((), dtype=torch.bool, device="cpu")
        return self.max_abs() == 0

    @property
    def is_moderate(self) -> bool:
        """Whether float32 holds the squares of all entries that count; reads a number."""
        return foreach.is_moderate(float(self.norm()))

    def _pairs(self, other: "Vector") -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            apart = mine.row is None or theirs.row is None
            yield (mine.entries, theirs.entries) if apart else (mine.blocks, theirs.blocks)


class ParamInfo(NamedTuple):
    """What is known of the parameters: the name of each, and the modules that own it."""

    names: dict[Tensor, str]
    owners: dict[Tensor, list[nn.Module]]

    def name(self, param: Tensor) -> str:
        """Return a parameter's name for a message, or its shape where the name is unknown."""
        return self.names.get(param, f"of shape {tuple(param.shape)}")


def norm_of(tensors: list[Tensor], shards: Shards | None, order: float = 2.0) -> Tensor:
    """Norm over some tensors and all their shards: 0-dim, in float32 or better."""
    here = foreach.norm(tensors, order)
    if shards is None:
        return here
    if order == torch.inf:  # a maximum over processes may drop NaN, but not infinity
        return reduce(torch.where(here.isfinite(), here, torch.inf), shards, "max")
    return reduce(here.pow(order), shards, "sum").pow(1 / order)


def are_plain(params: Sequence[Tensor]) -> bool:
    """Whether parameters are whole, real, and of one dtype, so that each stands for itself."""
    dtypes = {param.dtype for param in params}
    return set(map(type, params)) == {nn.Parameter} and len(dtypes) == 1 and not next(iter(dtypes)).is_complex


def unit_of(vector: Vector, max_abs: Tensor) -> Tensor:
    """Return a unit for ``vector``: a power of two about as large as ``max_abs``, its largest magnitude.

    In that unit neither products nor squares of entries overflow, they vanish only where they do not count, and nothing
    is rounded.
    """
    narrow = any(part.kind[1] == torch.float32 for part in vector.parts)
    most = 126 if narrow else 1022  # both the unit and its inverse must exist in that dtype
    exponent = torch.floor(torch.log2(max_abs)).clamp(-most, most)
    return torch.where((max_abs > 0) & max_abs.isfinite(), torch.exp2(exponent), 1)


def _kind(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


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
        return torch.zeros(1, dtype=torch.float32, device="cpu")
    place = reduction_device(number.device for number in numbers)
    return torch.stack([number.to(place) for number in numbers])
