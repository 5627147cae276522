"""What a step saves before it changes it, and gives back: gradients, the model's state, random state, weights."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .._vectors.foreach import Snapshot
from .._vectors.shards import local, place_gradients
from .._vectors.vector import Vector
from .forward_state import ForwardState
from .model import Averaging

__all__ = ["CarriedGradients", "RandomState", "SavedState", "is_not_zero"]


class CarriedGradients:
    """Gradients that were there before the step: accumulated ones, or zeros.

    They are copied, because an engine may reuse their storage for the first pass (DDP's bucket views). The same tensors
    come back, because an engine may hold them.

    Args:
        params: the optimizer's parameters.
        others: parameters of the model that are not the optimizer's.

    Attributes:
        aside: whether they are set aside now.
    """

    def __init__(self, params: Sequence[Tensor], others: Sequence[Tensor] = ()) -> None:
        self.aside = False
        self._grads = [(param, param.grad) for param in params]
        self._copies = _copies(self._grads)
        self._others = [(param, param.grad) for param in others]
        self._other_copies = _copies(self._others)

    @property
    def _all(self) -> list[tuple[Tensor, Tensor | None]]:
        return [*self._grads, *self._others]

    def set_aside(self) -> None:
        """Leave every parameter without a gradient."""
        self.aside = True
        for param, _ in self._all:
            param.grad = None

    @property
    def any(self) -> bool:
        """Whether the optimizer's parameters had one that was not zero. Waits for the device."""
        return any(is_not_zero(grad) for _, grad in self._grads)

    def forget(self) -> None:
        """Treat those of the optimizer as cleared: a closure calls ``zero_grad()`` while they are set aside."""
        self._grads = [(param, None) for param, _ in self._grads]
        self._copies = Snapshot(())

    def give_back(self) -> None:
        """Put every gradient back as it was."""
        with torch.no_grad():
            self._copies.restore()
            self._other_copies.restore()
        for param, grad in self._all:
            param.grad = grad
        self.aside = False

    def add_gained(self) -> None:
        """Put every gradient back as it was, plus what has been gained since they were set aside."""
        gained = [(param, param.grad) for param, _ in self._all if param.grad is not None]
        before = {param: grad for param, grad in self._all if grad is not None}
        if not before:
            return
        copy = Vector.of((param, grad) for param, grad in gained if param in before).copy()  # storage may be shared
        self.give_back()
        place_gradients(copy.params)
        Vector.of((p, p.grad) for p in copy.params if p.grad is not None).add_(copy)
        for param, grad in gained:
            if param not in before:
                param.grad = grad


def is_not_zero(gradient: Tensor | None) -> bool:
    """Whether a gradient has an entry other than zero; waits for the device."""
    if gradient is None or gradient.is_meta:
        return False
    here = local(gradient)
    here = here.coalesce().values() if here.is_sparse else here
    return bool(here.count_nonzero())


def _copies(grads: Sequence[tuple[Tensor, Tensor | None]]) -> Snapshot:
    return Snapshot([local(grad) for _, grad in grads if grad is not None])


class RandomState:
    """State of the generators that layers draw from: torch's on the CPU and on the devices of some tensors.

    Those of numpy and of Python are kept too, where the program has imported them: augmentation in ``forward()``
    (SpecAugment) draws from them. Generators of somebody's own (``numpy.random.default_rng()``) cannot be seen.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        devices = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
        self._cpu = torch.get_rng_state()
        self._devices = {d: torch.get_device_module(d).get_rng_state(d) for d in devices}
        python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
        self._others = [(m.setstate, m.getstate()) for m in (python,) if m is not None]
        self._others += [(m.set_state, m.get_state()) for m in (numpy,) if m is not None]

    def rewind(self) -> None:
        """Draw the same numbers again from here."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices.items():
            torch.get_device_module(device).set_rng_state(state, device)
        for set_state, state in self._others:
            set_state(state)


class SavedState:
    """Everything that a step saves, and how it comes back.

    Args:
        params: the optimizer's parameters.
        others: every other parameter that a pass may give a gradient: none may keep one of the ascent pass.
        refresh: called after the weights have moved; whoever holds copies of them must then read them again.

    Attributes:
        carried: gradients that were there before.
        random: the random state at the start, where all passes are to draw the same numbers.
        forward: what the first pass has moved beside the weights, as it left it; None while there is no second pass.
        averaging: whether DDP averages the gradients of the running pass.
        weights: the weights, before the climb moves them.
        moving: the parameters of these weights, in parts.
        finished: whether the step has come to its end, so that the gradients stay.
    """

    def __init__(self, params: Sequence[Tensor], others: Sequence[Tensor], refresh: Callable[[], None]) -> None:
        self.carried = CarriedGradients(params, others)
        self.random: RandomState | None = None
        self.forward: ForwardState | None = None
        self.averaging: Averaging | None = None
        self.weights: Snapshot | None = None
        self.moving: list[list[Tensor]] = []
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
            if self.forward is not None:
                stack.callback(self.forward.restore)
            if self.averaging is not None:
                stack.callback(self.averaging.restore)
            if self.weights is not None:
                stack.callback(torch.clear_autocast_cache)
                stack.callback(self._refresh)
                stack.callback(self.weights.restore)
