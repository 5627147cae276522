"""Buckets: parts of a gradient together with the weights that it will move.

Between the passes of a step the arithmetic is bound by memory, so a bucket does nothing to its entries before it must.
It keeps them as ``backward()`` has left them, beside one factor, and multiplies when somebody looks at them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from . import foreach
from .foreach import Scale, is_moderate
from .host import can_read
from .part import Part, lengths_of, norm_of, norms_of, real, reduction_device
from .shards import Shards, local, shards_of
from .vector import ParamInfo, are_plain

__all__ = ["Bucket", "CommonUnit", "buckets_of"]


class Bucket(Part):
    """Parameters of one group, device, dtype and sharding, with the gradients to climb along.

    Example:
        >>> from bisam.geometry import Geometry
        >>> class Signs(Geometry):
        ...     def __call__(self, buckets, memory):
        ...         for bucket in buckets:
        ...             for tensor in bucket.tensors:
        ...                 tensor.sign_()

    Args:
        params: the parameters.
        tensors: the gradient of each.
        weights: the weights, as they lie in this process; complex ones as pairs of reals.
        shards: how they are sharded over processes; None where they are whole.
        info: names and owners of the parameters.
        rho: radius of their group, > 0.
        sign: -1 where the base optimizer maximises, because the worst point then lies downhill; else 1.
        still: the trainable parameters of the groups whose radius is 0; all buckets share it.

    Attributes:
        due: what the optimizer multiplies ``tensors`` by after the geometry; :meth:`normalise` does it on the way.
        on_host: whether numbers of it can be read without waiting, and its entries hold what float32 holds.
        lent: whether somebody else still needs the gradients, so that they may be changed in a copy alone.
    """

    def __init__(
        self,
        params: list[Tensor],
        tensors: list[Tensor],
        weights: list[Tensor],
        shards: Shards | None,
        info: ParamInfo,
        rho: float,
        sign: int,
        still: list[Tensor],
    ) -> None:
        self.due: Tensor | float = 1.0
        self.lent = False
        self._factor: Tensor | float | None = None  # what the kept entries are still to be multiplied by
        self._common: CommonUnit | None = None
        self._unit: Tensor | None = None
        super().__init__(params, tensors, shards)
        self.weights, self.rho, self.sign = weights, rho, sign
        self._info, self._still = info, still
        weight = weights[0]
        self.on_host = can_read(weight.device) and weight.dtype.itemsize > 2 and shards is None

    # -- what a geometry asks ------------------------------------------------------------------------------------

    @property
    def entries(self) -> list[Tensor]:
        """The gradient of each parameter, in units of ``unit``. A geometry replaces them in place."""
        if self._common is not None:
            self._common.by_largest()
        self._own()
        self._multiply_out()
        return self._entries

    def _replace(self, tensors: list[Tensor]) -> None:
        if self._common is not None:
            self._common.by_largest()
        self._factor, self.lent = None, False
        super()._replace(tensors)

    @property
    def kind(self) -> tuple[torch.device, torch.dtype]:
        """Device and dtype of the entries; nobody has to look at them for it."""
        return self._entries[0].device, self._entries[0].dtype

    @property
    def unit(self) -> Tensor:
        """0-dim; ``tensors`` times ``unit`` are the gradients themselves, without the group's relative radius."""
        if self._common is not None:
            self._common.by_largest()
        return self._one() if self._unit is None else self._unit

    @cached_property
    def names(self) -> list[str | None]:
        """The parameters' names in the model, None where unknown."""
        return [self._info.names.get(param) for param in self.params]

    @cached_property
    def owners(self) -> list[list[nn.Module]]:
        """The modules that own each of the parameters; empty where the model is unknown."""
        return [self._info.owners.get(param, []) for param in self.params]

    @property
    def still(self) -> list[list[nn.Module]]:
        """The modules that own each trainable parameter of the groups whose radius is 0."""
        return [self._info.owners.get(param, []) for param in self._still]

    def settle(self) -> None:
        """Let the unit be chosen for an l2 norm, and multiply out what is kept where float32 does not hold its norm."""
        if self._common is not None:
            self._common.by_norm()
        if self.on_host and self._factor is not None and not is_moderate(float(self.take_length())):
            self._own()
            self._multiply_out()

    def scaled(self, length: Tensor) -> Tensor:
        """Return the norm of ``tensors``, given that of what is kept."""
        return length if self._factor is None else (length * self._factor).abs()

    def normalise(self, length: Tensor) -> None:
        """Divide ``tensors`` by a 0-dim ``length``; what is due afterwards is done by the same operation."""
        if self.on_host or self.in_double:
            if self._common is not None:
                self._common.by_norm()
            self._multiply_later(self._per(length))
        else:
            foreach.div_(self.entries, length / self.due)
        self.due = 1.0

    def _per(self, length: Tensor) -> Tensor | float:
        """Return what is due, over a length; along a zero gradient there is no way."""
        if not self.on_host:
            return self.due / length
        divisor = float(length)
        return float(self.due) / divisor if divisor else math.nan

    def _multiply_later(self, factor: Tensor | float) -> None:
        self._factor = factor if self._factor is None else factor * self._factor
        if self._given:  # they are looked at while nobody asks
            self._own()
            self._multiply_out()

    def pay(self) -> None:
        """Multiply by what is due, where the geometry has not done it."""
        if isinstance(self.due, Tensor) or self.due != 1.0:
            if self.in_double and self._common is None:
                self._multiply_later(self.due)
            else:
                foreach.mul_(self.entries, self.due)
            self.due = 1.0

    def multiply(self, scale: Scale) -> None:
        """Multiply each of ``tensors`` in place by its factor."""
        if scale is None:
            return
        if self._common is not None:
            self._common.by_norm()
        self._own()
        foreach.multiply(self._entries, scale)

    def select(self, chosen: Callable[[int], bool]) -> None:
        """Keep the parameters whose index is ``chosen``; the step does not move the others."""
        left = [number for number in range(len(self.params)) if chosen(number)]
        for name in ("params", "_entries", "weights"):  # new lists: vectors share the old ones
            setattr(self, name, [getattr(self, name)[number] for number in left])
        for name in ("names", "owners"):
            self.__dict__.pop(name, None)

    # -- what the climb asks ---------------------------------------------------------------------------------------

    def entries_and_factor(self) -> tuple[list[Tensor], float]:
        """Return the entries, and the number that makes them ``tensors`` times what is due. Reads a number."""
        factor = float(self.due) if self._factor is None else float(self._factor) * float(self.due)
        if factor and not 1e-30 < abs(factor) < 1e30:  # float32 holds the product, and may not hold the factor
            root = math.sqrt(abs(factor))
            self._own()
            foreach.mul_(self._entries, root)
            factor /= root
        return self._entries, factor

    def reach(self, factor: float) -> float:
        """L2 norm of the entries times ``factor``, also where float32 does not hold their squares. Reads numbers."""
        length = float(self.take_length())
        if not is_moderate(length):
            largest = float(self.largest_entry())
            if 0 < largest < math.inf:
                length = float(norm_of(foreach.divided(self._entries, largest), self.shards)) * largest
        return length * abs(factor)

    def look(self) -> tuple[list[Tensor], Tensor]:
        """Return the entries as they lie, and their unit: to read, not to change, and before they are multiplied."""
        if self._common is not None:
            self._common.by_norm()
        return self._entries, self.unit if self._factor is None else self.unit * self._factor

    def largest_entry(self) -> Tensor:
        """Largest magnitude of the entries: 0-dim."""
        return norm_of(self._entries, self.shards, torch.inf)

    def in_unit(self, common: "CommonUnit") -> None:
        """Give the gradients in the unit of a geometry from here on, as soon as it is chosen."""
        self._common, self.on_host, self.in_double = common, common.on_host, common.in_double

    def keep_in(self, unit: float) -> None:
        """Take a unit, and leave the entries as they are: they are to be divided by it."""
        self._unit, self._factor, self._common = self._one() * unit, 1 / unit, None

    def bring_into(self, unit: Tensor, rescale: Callable[[list[Tensor]], None]) -> None:
        """Take a unit, and bring the entries into it."""
        self._unit, self._common = unit, None
        self._own()
        rescale(self._entries)

    def _own(self) -> None:
        if self.lent:
            self._entries, self.lent = foreach.copies(self._entries), False

    def _multiply_out(self) -> None:
        if self._factor is not None:
            factor, self._factor = self._factor, None
            foreach.mul_(self._entries, factor)

    def _one(self) -> Tensor:
        weight = self.weights[0]
        return torch.ones((), dtype=foreach.accumulation_dtype(weight.dtype), device=weight.device)


class CommonUnit:
    """The unit in which a geometry sees a step's gradients, chosen when it first asks.

    In it squares neither overflow nor vanish where they count. Each group's gradient is multiplied by its relative
    radius on the way. Whoever asks for the entries first gets them in units of their largest magnitude. Whoever asks
    for a norm first, or multiplies, has the norm as the unit, and no entry is touched: that is enough for an ellipsoid,
    where every number can be read at once. On an accelerator the host would have to wait for the norm, and 16 bits do
    not hold every unit: there it is the largest magnitude at once. Over shards that would cost a reduction: there norms
    are accumulated in float64, and the unit is 1 for those who ask for a norm first.

    Args:
        buckets: all that can move.

    Attributes:
        on_host: whether all numbers can be read without waiting.
        in_double: whether norms are accumulated in float64, which needs no unit.
    """

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._buckets = list(buckets)
        self._largest_rho = max(bucket.rho for bucket in buckets)
        self._size: Tensor | float | None = None
        self.on_host = all(bucket.on_host for bucket in buckets)
        coarse = any(bucket.weights[0].dtype.itemsize == 2 for bucket in buckets)
        self.in_double = any(bucket.shards for bucket in buckets) and not coarse
        for bucket in buckets:
            bucket.in_unit(self)
        if not self.on_host and not self.in_double:
            self.by_largest()

    @property
    def size(self) -> Tensor | float:
        """Largest magnitude of the gradients, or their norm; zero or not finite where there is no way up.

        1 where no number was needed: then the norm of eps tells whether there is a way.
        """
        self.by_norm()
        assert self._size is not None
        return self._size

    def by_norm(self) -> None:
        """Choose the norm, if nothing is chosen yet; outside of the moderate numbers the largest magnitude."""
        if self._size is not None:
            return
        total = 1.0 if self.in_double else self._norm()
        if not is_moderate(total):
            self.by_largest()
            return
        place = reduction_device(bucket.weights[0].device for bucket in self._buckets)
        self._size = torch.ones((), dtype=torch.float64, device=place) if self.in_double else total
        for bucket in self._buckets:
            bucket.keep_in(total / self._relative(bucket))
        self._buckets = []  # the two know each other no longer, so that nobody has to look for a cycle

    def _norm(self) -> float:
        lengths = lengths_of(self._buckets)
        return math.hypot(*[float(n) * self._relative(b) for n, b in zip(lengths, self._buckets, strict=True)])

    def by_largest(self) -> None:
        """Choose the largest magnitude, if nothing is chosen yet, and bring all entries into it.

        Where dtypes differ, or have 16 bits, one of them may not hold the common unit: there each bucket is divided by
        its own largest magnitude first.
        """
        if self._size is not None:
            return
        place = reduction_device(bucket.weights[0].device for bucket in self._buckets)
        own = norms_of([(bucket.kept, bucket.shards, False) for bucket in self._buckets], torch.inf)
        scaled = [(largest * self._relative(b)).to(place) for largest, b in zip(own, self._buckets, strict=True)]
        self._size = size = torch.stack(scaled).amax()
        common = torch.where(size > 0, size, 1)
        dtypes = {bucket.weights[0].dtype for bucket in self._buckets}
        one_unit = len(dtypes) == 1 and next(iter(dtypes)).itemsize > 2
        for bucket, largest in zip(self._buckets, own, strict=True):
            unit = common / self._relative(bucket)
            bucket.bring_into(unit, _rescaling(unit, None if one_unit else largest))
        self._buckets = []

    def _relative(self, bucket: Bucket) -> float:
        return bucket.rho / self._largest_rho


def _rescaling(unit: Tensor, largest: Tensor | None) -> Callable[[list[Tensor]], None]:
    def rescale(entries: list[Tensor]) -> None:
        if largest is None:
            foreach.div_(entries, unit)
        else:
            foreach.div_(entries, torch.where(largest > 0, largest, 1))
            foreach.mul_(entries, torch.where(largest > 0, largest.to(unit.device) / unit, 0))

    return rescale


def buckets_of(groups: Iterable[dict[str, Any]], info: ParamInfo, sources: dict[Tensor, Tensor] | None) -> list[Bucket]:
    """Sort the parameters that have a gradient, and a radius above zero, into buckets.

    Args:
        groups: the optimizer's param groups.
        info: names and owners of the parameters.
        sources: what to climb along, by parameter, instead of the gradients.

    Raises:
        ValueError: a sparse gradient.
    """
    buckets: list[Bucket] = []
    still: list[Tensor] = []
    for group in groups:
        params = group["params"]
        if not group["rho"] > 0:
            still += [param for param in params if param.requires_grad]
            continue
        grads = [param.grad for param in params] if sources is None else [_found(sources, param) for param in params]
        moving = [
            (param, grad)
            for param, grad in zip(params, grads, strict=True)
            if grad is not None and param.requires_grad and param.numel()
        ]
        _check_dense(moving, info)
        sign = -1 if group.get("maximize") else 1
        buckets += [Bucket(*part, info, float(group["rho"]), sign, still) for part in _alike(moving)]
    return buckets


def _found(sources: dict[Tensor, Tensor], param: Tensor) -> Tensor | None:
    return None if param.is_meta else sources.get(param)  # a weight that is not there yet cannot move


def _alike(moving: list[tuple[Tensor, Tensor]]) -> Iterable[tuple[list[Tensor], list[Tensor], list[Tensor], Any]]:
    """Sort parameters and gradients by device, dtype and sharding: (params, gradients, weights, shards) of each."""
    params = [param for param, _ in moving]
    if are_plain(params) and len({param.device for param in params}) == 1:  # mostly so
        return [(params, [grad for _, grad in moving], params, None)]
    parts: dict[tuple[Any, ...], tuple[list[Tensor], list[Tensor], list[Tensor], Any]] = {}
    for param, grad in moving:
        shards = shards_of(param)
        itself = shards is None and not param.is_complex()  # so that it is met where it lies, if its data is rebound
        weight = param if itself else real(local(param.detach()))
        part = parts.setdefault((weight.device, weight.dtype, shards), ([], [], [], shards))
        for whole, one in zip(part[:3], (param, real(local(grad, shards)), weight), strict=True):
            whole.append(one)
    return parts.values()


def _check_dense(moving: Sequence[tuple[Tensor, Tensor]], info: ParamInfo) -> None:
    if {grad.layout for _, grad in moving} <= {torch.strided}:
        return
    for param, grad in moving:
        if grad.layout is not torch.strided:
            raise ValueError(
                f"the gradient of parameter {info.name(param)} is sparse ({grad.layout}), and a perturbation is "
                "dense: build the layer with sparse=False, or give its group rho=0"
            )
