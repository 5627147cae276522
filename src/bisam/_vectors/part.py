"""Parts of a vector: entries that lie on one device, have one dtype, and are sharded in one way; and their norms."""

import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import foreach
from .shards import Shards, reduce_each

__all__ = [
    "Part",
    "each_norm",
    "joint_norm",
    "kind_of",
    "lengths_of",
    "norm_of",
    "norms_of",
    "real",
    "reduction_device",
    "stacked",
    "version_of",
]


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

    Attributes:
        in_double: whether norms are accumulated in float64. Over shards they are: no unit has to be agreed on first.
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
        self.in_double = shards is not None
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
        return kind_of(self._entries[0])

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
        return each_norm([self], order)[0]

    def settle(self) -> None:
        """Prepare for an l2 norm of what is kept."""

    def scaled(self, length: Tensor) -> Tensor:
        """Return the norm of the entries, given that of what is kept."""
        return length

    def known_length(self) -> Tensor | None:
        """Return the l2 norm of what is kept, if it was taken and nothing has changed since."""
        known = self._length
        if self._given or known is None or known.tensors is not self._entries:
            return None
        return known.norm if known.versions == list(map(version_of, self._entries)) else None

    def take_length(self) -> Tensor:
        """Return the l2 norm of what is kept, taken once until it changes."""
        return lengths_of([self])[0]

    def keep_length(self, norm: Tensor) -> None:
        """Remember the l2 norm of what is kept."""
        if not self._given:
            self._length = Length(norm, self._entries, list(map(version_of, self._entries)))

    @property
    def kept(self) -> list[Tensor]:
        """The entries as they lie, whatever they are still to be multiplied by."""
        return self._entries


#: No public name tells whether a tensor was changed in place.
version_of = operator.attrgetter("_version")


class Length(NamedTuple):
    """A norm, of which tensors, and their versions when it was taken."""

    norm: Tensor
    tensors: list[Tensor]
    versions: list[int]


def norm_of(tensors: list[Tensor], shards: Shards | None, order: float = 2.0) -> Tensor:
    """Norm over some tensors and all their shards: 0-dim, in float32 or better."""
    return norms_of([(tensors, shards, shards is not None)], order)[0]


def norms_of(lists: Sequence[tuple[list[Tensor], Shards | None, bool]], order: float = 2.0) -> list[Tensor]:
    """Norm of each list of tensors over all their shards: 0-dim; lists that are sharded alike share one reduction.

    Args:
        lists: tensors, how they are sharded, and whether to accumulate in float64.
        order: of the norm.
    """
    here = [foreach.norm(tensors, order, double=double) for tensors, _, double in lists]
    shards = [placed for _, placed, _ in lists]
    if not any(shards):
        return here
    if order == torch.inf:  # a maximum over processes may drop NaN, but not infinity
        sizes = [
            size if s is None else torch.where(size.isfinite(), size, torch.inf)
            for size, s in zip(here, shards, strict=True)
        ]
        return reduce_each(sizes, shards, "max")
    powers = reduce_each(
        [size if s is None else size.pow(order) for size, s in zip(here, shards, strict=True)], shards, "sum"
    )
    return [size if s is None else size.pow(1 / order) for size, s in zip(powers, shards, strict=True)]


def lengths_of(parts: Sequence[Part]) -> list[Tensor]:
    """L2 norm of what each part keeps, taken once until it changes; all that are sharded alike share one reduction."""
    lengths = [part.known_length() for part in parts]
    missing = [number for number, length in enumerate(lengths) if length is None]
    taken = norms_of([(parts[number].kept, parts[number].shards, parts[number].in_double) for number in missing])
    for number, length in zip(missing, taken, strict=True):
        parts[number].keep_length(length)
        lengths[number] = length
    return [length for length in lengths if length is not None]


def each_norm(parts: Sequence[Part], order: float = 2.0) -> list[Tensor]:
    """Norm of each part over all shards: 0-dim; all that are sharded alike share one reduction."""
    if order != 2.0:
        return norms_of([(part.entries, part.shards, part.in_double) for part in parts], order)
    for part in parts:
        part.settle()
    return [part.scaled(length) for part, length in zip(parts, lengths_of(parts), strict=True)]


def joint_norm(norms: list[Tensor], order: float = 2.0) -> Tensor:
    """Norm of the whole, given those of its parts: 0-dim."""
    if len(norms) == 1:
        return norms[0]
    norm: Tensor = torch.linalg.vector_norm(stacked(norms), order)
    return norm


def kind_of(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


def real(tensor: Tensor) -> Tensor:
    """View complex numbers as pairs of reals."""
    return torch.view_as_real(tensor.resolve_conj().resolve_neg()) if tensor.is_complex() else tensor


def reduction_device(devices: Iterable[torch.device]) -> torch.device:
    """Return the device on which numbers of several devices are reduced: the first accelerator, else the CPU."""
    found = list(devices)
    return next((device for device in found if device.type != "cpu"), found[0])


def stacked(numbers: list[Tensor]) -> Tensor:
    """Stack 0-dim numbers of several devices and dtypes; of none, a zero."""
    if not numbers:
        return torch.zeros(1, dtype=torch.float32, device="cpu")
    place = reduction_device(number.device for number in numbers)
    return torch.stack([number.to(place) for number in numbers])
