"""Random numbers that depend on (seed, step) alone, so that resumed runs, micro-batches and workers draw the same."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["chosen", "seeded", "uniform", "uniform_row"]


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


def chosen(tensors: Sequence[Tensor], share: float, *numbers: int) -> Tensor:
    """Return a row of ones and zeros, one for each entry of ``tensors``: 1 with probability ``share``.

    On the CPU four draws are taken from each 64 random bits, which rounds ``share`` to 1/65536 and takes a third of the
    time; a share of which that would be more than a ten-thousandth is drawn from uniform numbers, as on other devices.
    """
    like = tensors[0]
    length = sum(tensor.numel() for tensor in tensors)
    level = round(share * 65536)
    if like.device.type != "cpu" or abs(level - share * 65536) > 1e-4 * level:
        return (uniform_row(length, like.device, *numbers) < share).to(like.dtype)
    generator = torch.Generator("cpu").manual_seed(seeded(*numbers))
    words = torch.empty(-(-length // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None, generator=generator)
    return (words.view(torch.int16)[:length] < level - 32768).to(like.dtype)
