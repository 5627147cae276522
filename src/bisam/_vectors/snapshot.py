"""Copies of tensors, taken and put back bit for bit."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .foreach import as_integers

__all__ = ["Snapshot"]


class Snapshot:
    """Copies of tensors that come back bit for bit: -0.0, subnormal numbers and NaN payloads included.

    The tensors are read and written as integers and keep their storage. Those whose elements have no bits of their own
    (sparse, quantized, conjugate or expanded views) are cloned one by one, and written back only if they have changed.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        self._odd: list[tuple[Tensor, Tensor, int]] = []
        for tensor in tensors:
            own = tensor.detach()
            dense = own.layout == torch.strided and not (own.is_conj() or own.is_neg() or own.is_quantized)
            if dense and (own.is_contiguous() or 0 not in own.stride() or own.numel() < 2):
                alike.setdefault((own.device, own.dtype), []).append(own)
            else:
                self._odd.append((tensor, own.clone(), tensor._version))  # no public way to see an in-place change
        bits = [[as_integers(tensor) for tensor in part] for part in alike.values()]
        self._parts = [(live, torch._foreach_add(live, 0)) for live in bits]

    def restore(self) -> None:
        """Write the copies back."""
        for live, saved in self._parts:
            torch._foreach_copy_(live, saved)
        for tensor, copy, version in self._odd:
            if tensor._version != version:
                tensor.copy_(copy)
