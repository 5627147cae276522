"""What a step saves before it changes it, and gives back: gradients, buffers, random state, weights."""

import contextlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .._vectors.foreach import Snapshot
from .._vectors.shards import local, place_gradients
from .._vectors.vector import Vector
from .model import Buffers

__all__ = ["CarriedGradients", "RandomState", "SavedState"]


class CarriedGradients:
    """Gradients that were there before the step: accumulated ones, or zeros.

    They are copied, because an engine may reuse their storage for the first pass (DDP's bucket views). The same tensors
    come back, because an engine may hold them.

    Attributes:
        aside: whether they are set aside now.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.aside = False
        self._grads = [(param, param.grad) for param in params]
        self._copies = Snapshot([local(grad) for _, grad in self._grads if grad is not None])

    def set_aside(self) -> None:
        """Leave every parameter without a gradient."""
        self.aside = True
        for param, _ in self._grads:
            param.grad = None

    def forget(self) -> None:
        """Treat them as cleared: a closure calls ``zero_grad()`` while they are set aside."""
        self._grads = [(param, None) for param, _ in self._grads]
        self._copies = Snapshot(())

    def give_back(self) -> None:
        """Put every gradient back as it was."""
        with torch.no_grad():
            self._copies.restore()
        for param, grad in self._grads:
            param.grad = grad
        self.aside = False

    def add_gained(self) -> None:
        """Put every gradient back as it was, plus what has been gained since they were set aside."""
        gained = [(param, param.grad) for param, _ in self._grads if param.grad is not None]
        before = {param: grad for param, grad in self._grads if grad is not None}
        if not before:
            return
        copy = Vector.of((param, grad) for param, grad in gained if param in before).copy()  # storage may be shared
        self.give_back()
        place_gradients(copy.params)
        Vector.of((p, p.grad) for p in copy.params if p.grad is not None).add_(copy)
        for param, grad in gained:
            if param not in before:
                param.grad = grad


class RandomState:
    """State of torch's random generators on the CPU and on the devices of some tensors."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        devices = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
        self._cpu = torch.get_rng_state()
        self._devices = {d: torch.get_device_module(d).get_rng_state(d) for d in devices}

    def rewind(self) -> None:
        """Draw the same numbers again from here."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices.items():
            torch.get_device_module(device).set_rng_state(state, device)


class SavedState:
    """Everything that a step saves, and how it comes back.

    Args:
        params: every parameter that a pass may give a gradient: none may keep one of the ascent pass.
        refresh: called after the weights have moved; whoever holds copies of them must then read them again.

    Attributes:
        carried: gradients that were there before.
        random: the random state at the start, where all passes are to draw the same numbers.
        buffers: buffers as the first pass left them.
        weights: the weights, before the climb moves them.
        finished: whether the step has come to its end, so that the gradients stay.
    """

    def __init__(self, params: Sequence[Tensor], refresh: Callable[[], None]) -> None:
        self.carried = CarriedGradients(params)
        self.random: RandomState | None = None
        self.buffers: Buffers | None = None
        self.weights: Snapshot | None = None
        self.finished = False
        self._refresh = refresh

    def put_back(self) -> None:
        """Put everything back; after an interruption in the middle, start once more."""
        try:
            self._put_back()
        except BaseException:
            self._put_back()
            raise

    def _put_back(self) -> None:
        with contextlib.ExitStack() as stack:  # each one, even if another fails; the weights first
            if not self.finished:
                stack.callback(self.carried.give_back)
            if self.buffers is not None:
                stack.callback(self.buffers.restore)
            if self.weights is not None:
                stack.callback(torch.clear_autocast_cache)
                stack.callback(self._refresh)
                stack.callback(self.weights.restore)
