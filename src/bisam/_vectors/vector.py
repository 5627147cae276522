"""Vectors over parameters: one gradient as one vector, in whatever tensors, devices, dtypes and shards it lies.

A bucket is a part of a vector together with the weights that it will move.

Every operation dispatches a number of kernels that depends on the number of parts, never on the number of parameters,
and none reads a value back to the host.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import foreach
from .foreach import Scale
from .shards import Shards, local, reduce, shards_of

__all__ = ["Bucket", "ParamInfo", "Part", "Vector", "buckets_of", "real", "reduction_device", "unit_of"]


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
        if len(self.parts) == 1:
            return self.parts[0].norm(order)
        norm: Tensor = torch.linalg.vector_norm(_stacked([part.norm(order) for part in self.parts]), order)
        return norm

    def max_abs(self) -> Tensor:
        """Largest magnitude, NaN or infinite where an entry is: 0-dim."""
        return _stacked([part.norm(torch.inf) for part in self.parts]).amax()

    def _pairs(self, other: "Vector") -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            apart = mine.row is None or theirs.row is None
            yield (mine.tensors, theirs.tensors) if apart else (mine.blocks, theirs.blocks)


class ParamInfo(NamedTuple):
    """What is known of the parameters: the name of each, and the modules that own it."""

    names: dict[Tensor, str]
    owners: dict[Tensor, list[nn.Module]]

    def name(self, param: Tensor) -> str:
        """Return a parameter's name for a message, or its shape where the name is unknown."""
        return self.names.get(param, f"of shape {tuple(param.shape)}")


@dataclass
class Bucket(Part):
    """Parameters of one group, device, dtype and sharding, with the gradients to climb along.

    Attributes:
        params: the parameters.
        tensors: the gradient of each, in units of ``unit``. A geometry replaces them in place.
        shards: how they are sharded over processes; None where they are whole.
        weights: the weights, as they lie in this process; complex ones as pairs of reals.
        names: their names in the model, None where unknown.
        owners: the modules that own each of them; empty where the model is unknown.
        rho: radius of their group, > 0.
        sign: -1 where the base optimizer maximises, because the worst point then lies downhill; else 1.
        unit: 0-dim; ``tensors`` times ``unit`` are the gradients themselves.
        due: what the optimizer multiplies ``tensors`` by after the geometry; :meth:`normalise` does it on the way.
        still: the modules that own each trainable parameter of the groups whose radius is 0; all buckets share it.
    """

    weights: list[Tensor]
    names: list[str | None]
    owners: list[list[nn.Module]]
    rho: float
    sign: int
    unit: Tensor
    due: Tensor | float = 1.0
    still: list[list[nn.Module]] = field(default_factory=list)

    def normalise(self, length: Tensor) -> None:
        """Divide ``tensors`` by a 0-dim ``length``; what is due afterwards is done by the same operation."""
        foreach.div_(self.tensors, length / self.due)
        self.due = 1.0

    def multiply(self, scale: Scale) -> None:
        """Multiply each of ``tensors`` in place by its factor."""
        foreach.multiply(self.tensors, scale)

    def select(self, chosen: Callable[[int], bool]) -> None:
        """Keep the parameters whose index is ``chosen``; the step does not move the others."""
        left = [number for number in range(len(self.params)) if chosen(number)]
        for name in ("params", "tensors", "weights", "names", "owners"):  # new lists: vectors share the old ones
            setattr(self, name, [getattr(self, name)[number] for number in left])


def buckets_of(groups: Iterable[dict[str, Any]], info: ParamInfo, sources: dict[Tensor, Tensor] | None) -> list[Bucket]:
    """Sort the parameters that have a gradient, and a radius above zero, into buckets.

    Args:
        groups: the optimizer's param groups.
        info: names and owners of the parameters.
        sources: what to climb along, by parameter, instead of the gradients.

    Raises:
        ValueError: a sparse gradient.
    """
    buckets: dict[tuple[Any, ...], Bucket] = {}
    still: list[list[nn.Module]] = []
    for number, group in enumerate(groups):
        if not group["rho"] > 0:
            still += [info.owners.get(param, []) for param in group["params"] if param.requires_grad]
            continue
        for param in group["params"]:
            grad = param.grad if sources is None else sources.get(param)
            if grad is None or not param.requires_grad or param.numel() == 0:
                continue
            if grad.layout != torch.strided:
                raise ValueError(
                    f"the gradient of parameter {info.name(param)} is sparse ({grad.layout}), and a perturbation is "
                    "dense: build the layer with sparse=False, or give its group rho=0"
                )
            weight, shards = param.detach(), None
            if type(param) is not nn.Parameter or param.is_complex():  # sharded, or complex
                shards = shards_of(param)
                weight, grad = real(local(weight)), real(local(grad, shards))
            key = (number, weight.device, weight.dtype, shards)
            bucket = buckets.get(key)
            if bucket is None:
                sign = -1 if group.get("maximize") else 1
                one = torch.ones((), dtype=foreach.accumulation_dtype(weight.dtype), device=weight.device)
                rho = float(group["rho"])
                bucket = buckets[key] = Bucket([], [], shards, [], [], [], rho, sign, one, still=still)
            bucket.params.append(param)
            bucket.tensors.append(grad)
            bucket.weights.append(weight)
            bucket.names.append(info.names.get(param))
            bucket.owners.append(info.owners.get(param, []))
    return list(buckets.values())


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
        return torch.zeros(1, dtype=torch.float32, device="cpu")
    place = reduction_device(number.device for number in numbers)
    return torch.stack([number.to(place) for number in numbers])
