"""Random numbers that depend on (seed, step) alone, so that resumed runs, micro-batches and workers draw the same."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["seeded", "uniform", "uniform_row"]


def seeded(*numbers: int) -> int:
    """Return a seed made of several numbers. It is the same on every machine, and neighbours have unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def uniform(tensors: Sequence[Tensor], *numbers: int) -> Tensor:
    """Return a float32 row of uniform numbers in [0, 1), one for each entry of ``tensors``, which lie on one device."""
    return uniform_row(sum(tensor.numel() for tensor in tensors), tensors[0].device, *numbers)


def uniform_row(length: int, device: torch.device, *numbers: int) -> Tensor:
    """Return a float32 row of ``length`` uniform numbers in [0, 1).

    Dtype and generator are named: torch's defaults are the user's, and change what is drawn.
    """
    generator = torch.Generator(device).manual_seed(seeded(*numbers))
    return torch.rand(length, generator=generator, device=device, dtype=torch.float32)
