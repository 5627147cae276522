"""What a sharpness-aware step sets aside and gives back: gradients, buffers, random state."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ._foreach import Snapshot

__all__ = ["Buffers", "CarriedGradients", "RandomState"]


class CarriedGradients:
    """Gradients that were there before the step: accumulated ones, or zeros.

    They are copied, because an engine may reuse their storage for the first pass (DDP's bucket views), and the same
    tensors come back, because an engine may hold on to them.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._grads = [(param, param.grad) for param in params]
        self._copies = Snapshot(grad for _, grad in self._grads if grad is not None)

    def set_aside(self) -> None:
        """Leave every parameter without a gradient."""
        for param, _ in self._grads:
            param.grad = None

    def give_back(self) -> None:
        """Put every gradient back as it was."""
        with torch.no_grad():
            self._copies.restore()
        for param, grad in self._grads:
            param.grad = grad


class Buffers:
    """Buffers of a model as they stand now: running statistics, counters, whatever its layers register."""

    def __init__(self, model: nn.Module) -> None:
        self._owners = [
            (module, name, buffer)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        with torch.no_grad():
            self._copies = Snapshot({id(buffer): buffer for _, _, buffer in self._owners}.values())

    def restore(self) -> None:
        """Put them back, also where a layer has rebound its buffer to a new tensor."""
        for module, name, buffer in self._owners:
            module._buffers[name] = buffer
        with torch.no_grad():
            self._copies.restore()


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
