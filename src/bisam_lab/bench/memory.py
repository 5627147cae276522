"""How much memory steps need: bytes of live tensors, counted, so that the same steps give the same number.

On CUDA its allocator counts. Elsewhere the operating system's view of a process is too coarse, so every operation's
results are watched instead: a tensor's bytes count from the operation that makes its storage until nobody holds that
any more, autograd included. What a kernel uses inside itself is not seen.
"""

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Meter", "metered"]


class Meter:
    """Bytes that have come to be since it began: of CUDA's allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    @property
    def live(self) -> int:
        """What is there now."""
        return torch.cuda.memory_allocated(self.device) - self._before

    @property
    def peak(self) -> int:
        """The most that was there since :meth:`reset`."""
        return torch.cuda.max_memory_allocated(self.device) - self._before

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)


class _Watch(TorchDispatchMode):
    """Keeps account of the storages that operations make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def reset(self) -> None:
        """Forget the peak."""
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._note(leaf, counts=False)  # made before, or outside: a view of it must not count either
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self._note(leaf, counts=True)
        return result

    def _note(self, leaf: Any, *, counts: bool) -> None:
        if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
            return
        storage = leaf.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if counts else 0

        def gone(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextlib.contextmanager
def metered(device: torch.device) -> Iterator[Meter | _Watch]:
    """Count what is made within. Rubbish is collected where the caller does it, or when would be chance."""
    if device.type == "cuda":
        gc.collect()  # or what is freed within, but was there before, would count as less
    collects = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is there now need not be looked through again
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            yield Meter(device)
        else:
            with _Watch() as watch:
                yield watch
    finally:
        gc.unfreeze()
        if collects:
            gc.enable()
