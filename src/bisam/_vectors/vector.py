"""Vectors over parameters: one gradient as one vector, in whatever tensors, devices, dtypes and shards it lies.

Every operation dispatches a number of kernels that depends on the number of parts, never on the number of parameters,
and none reads a value back to the host.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import foreach
from .host import can_read
from .part import Part, each_norm, joint_norm, kind_of, real, reduction_device, stacked, version_of
from .shards import Shards, local, reduce_each, shards_of

__all__ = ["ParamInfo", "Vector", "are_plain", "both_max_abs", "both_norms", "unit_of"]


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
        if are_plain(params) and set(map(type, tensors)) == {Tensor} and len(set(map(kind_of, tensors))) == 1:
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
        return [list(map(version_of, part.entries)) for part in self.parts]

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
        here, shards = self._products(other)
        return stacked(reduce_each(here, shards, "sum")).sum()

    def dot_and_square(self, other: "Vector") -> tuple[Tensor, Tensor]:
        """Inner product with ``other``, and that of ``other`` with itself, by one reduction over shards: 0-dim."""
        if not any(part.shards for part in other.parts):
            return self.dot(other), other.norm().square()
        products, shards = self._products(other)
        squares = [foreach.norm(part.entries, double=part.in_double).square() for part in other.parts]
        both = reduce_each([*products, *squares], [*shards, *shards], "sum")
        return stacked(both[: len(products)]).sum(), stacked(both[len(products) :]).sum()

    def _products(self, other: "Vector") -> tuple[list[Tensor], list[Shards | None]]:
        """Return each part's inner product, of what lies in this process, and how the parts are sharded."""
        pairs = zip(self.parts, self._pairs(other), strict=True)
        return [foreach.dot(*pair) for _, pair in pairs], [part.shards for part in self.parts]

    def norm(self, order: float = 2.0) -> Tensor:
        """Norm over all parts, the l2 norm by default: 0-dim, in float32 or better."""
        return joint_norm(each_norm(self.parts, order), order)

    def max_abs(self) -> Tensor:
        """Largest magnitude, NaN or infinite where an entry is: 0-dim."""
        return stacked(each_norm(self.parts, torch.inf)).amax()

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


def of_both(size: Callable[[list[Tensor]], Tensor], a: Vector, b: Vector, order: float) -> tuple[Tensor, Tensor]:
    """Return ``size`` of the parts' norms of each of two vectors, by one reduction over shards."""
    each = each_norm([*a.parts, *b.parts], order)
    return size(each[: len(a.parts)]), size(each[len(a.parts) :])


def both_norms(a: Vector, b: Vector) -> tuple[Tensor, Tensor]:
    """L2 norms of two vectors, by one reduction over shards: 0-dim."""
    return of_both(joint_norm, a, b, 2.0)


def both_max_abs(a: Vector, b: Vector) -> tuple[Tensor, Tensor]:
    """Largest magnitudes of two vectors, by one reduction over shards: 0-dim."""
    return of_both(lambda norms: stacked(norms).amax(), a, b, torch.inf)


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


def _gradient(param: Tensor) -> Tensor:
    if param.grad is None:
        raise ValueError(f"a parameter of shape {tuple(param.shape)} has no gradient")
    return param.grad
