"""Sharded parameters (``DTensor``: FSDP2, tensor parallel): the local part of each, and reductions over all parts."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Shards", "local", "place_gradients", "reduce", "reduce_each", "shards_of", "whole"]


class Shards(NamedTuple):
    """How a tensor is spread over processes."""

    mesh: Any
    placements: tuple[Any, ...]

    @property
    def spread(self) -> tuple[Any, tuple[bool, ...]]:
        """The mesh, and along which of its dimensions the parts differ: what a reduction over the parts depends on."""
        return self.mesh, tuple(not placement.is_replicate() for placement in self.placements)

    @property
    def number(self) -> int:
        """Number of the local part; replicas have the same number."""
        number = 0
        for dimension, placement in enumerate(self.placements):
            if not placement.is_replicate():
                number = number * self.mesh.size(dimension) + self.mesh.get_local_rank(dimension)
        return number


def shards_of(tensor: Tensor) -> Shards | None:
    """Return how ``tensor`` is sharded; None for a tensor that is whole."""
    if not hasattr(tensor, "device_mesh"):
        return None
    sharded: Any = tensor
    return Shards(sharded.device_mesh, tuple(sharded.placements))


def local(tensor: Tensor, placed: Shards | None = None) -> Tensor:
    """Return the local part of ``tensor``, which shares its memory; ``placed`` is a layout to bring it into first."""
    if not hasattr(tensor, "to_local"):
        return tensor
    sharded: Any = tensor
    if placed is not None and tuple(sharded.placements) != placed.placements:
        sharded = sharded.redistribute(placed.mesh, placed.placements)
    with torch.no_grad():
        part: Tensor = sharded.to_local()
    return part


def whole(part: Tensor, param: Tensor) -> Tensor:
    """Return the tensor sharded as ``param`` whose local part is ``part``; complex numbers are pairs of reals."""
    shards = shards_of(param)
    if shards is None:
        return part
    from torch.distributed.tensor import DTensor

    shape = torch.empty(param.shape, dtype=param.dtype, device="meta")
    shape = torch.view_as_real(shape) if param.is_complex() else shape
    return DTensor.from_local(
        part, shards.mesh, shards.placements, run_check=False, shape=shape.shape, stride=shape.stride()
    )


def place_gradients(params: Iterable[Tensor]) -> None:
    """Give each gradient the layout of its parameter; tensor parallelism may leave gradients as partial sums."""
    for param in params:
        sharded: Any = param.grad
        shards = shards_of(param)
        if shards is not None and sharded is not None and tuple(sharded.placements) != shards.placements:
            param.grad = sharded.redistribute(shards.mesh, shards.placements)


def reduce(value: Tensor, shards: Shards | None, operation: str) -> Tensor:
    """Reduce a value, or each of a row, over the different parts by ``"sum"`` or ``"max"``."""
    if shards is None:
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate  # half a second, and only sharding needs it

    placements = [Replicate() if placement.is_replicate() else Partial(operation) for placement in shards.placements]
    spread = DTensor.from_local(value, shards.mesh, placements, run_check=False)
    for dimension, placement in enumerate(placements):  # several at once would make DTensor warn of the several
        if placement.is_partial():
            placements[dimension] = Replicate()
            spread = spread.redistribute(placements=list(placements))
    return spread.full_tensor()


def reduce_each(values: Sequence[Tensor], shards: Sequence[Shards | None], operation: str) -> list[Tensor]:
    """Reduce each of some 0-dim values over the parts of its tensor: one collective for all that are spread alike."""
    alike: dict[Any, list[int]] = {}
    for number, placed in enumerate(shards):
        if placed is not None:
            alike.setdefault(placed.spread, []).append(number)
    reduced = list(values)
    for numbers in alike.values():
        first = numbers[0]
        if len(numbers) == 1:
            reduced[first] = reduce(values[first], shards[first], operation)
            continue
        dtype = torch.float64 if any(values[number].dtype == torch.float64 for number in numbers) else None
        row = torch.stack([values[number].to(values[first].device, dtype) for number in numbers])
        for number, value in zip(numbers, reduce(row, shards[first], operation).unbind(), strict=True):
            reduced[number] = value
    return reduced
