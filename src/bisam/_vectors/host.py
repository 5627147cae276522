"""Where a number can be read without waiting for a device, so that the host may decide."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["as_on_accelerator", "can_read"]

_readable = {"cpu"}


def can_read(device: torch.device) -> bool:
    """Whether the host reads numbers there at once."""
    return device.type in _readable


@contextlib.contextmanager
def as_on_accelerator() -> Iterator[None]:
    """Let the device decide on the CPU too, as it does where reading a number means to wait."""
    _readable.discard("cpu")
    try:
        yield
    finally:
        _readable.add("cpu")
