"""Random numbers that depend on (seed, step) alone, so that resumed runs, micro-batches and workers draw the same."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["seeded", "uniform"]


def seeded(*numbers: int) -> int:
    """Return a seed made of several numbers. It is the same on every machine, and neighbours have unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def uniform(tensors: Sequence[Tensor], *numbers: int) -> Tensor:
    """Return a float32 row of uniform numbers in [0, 1), one for each entry of ``tensors``, which lie on one device."""
    device = tensors[0].device
    generator = torch.Generator(device).manual_seed(seeded(*numbers))
    return torch.rand(sum(tensor.numel() for tensor in tensors), generator=generator, device=device)
