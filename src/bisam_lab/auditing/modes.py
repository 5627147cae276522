"""The two modes in which a network is audited, by which statistics its layers normalise, and its state afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..run.checkpoint import random_state, set_random_state

__all__ = ["STATISTICS", "Modes", "Statistics", "mode", "modes_of", "untouched"]

Statistics: TypeAlias = Literal["batch", "running"]
STATISTICS: tuple[Statistics, ...] = get_args(Statistics)
#: The layers that are in training mode, by mode of the network.
Modes: TypeAlias = Mapping[Statistics, Sequence[nn.Module]]


class _Held(NamedTuple):
    """A tensor of a module that is no parameter: a buffer, or a plain attribute."""

    module: nn.Module
    place: dict[str, Any]
    key: str
    tensor: Tensor
    before: Tensor

    @property
    def moved(self) -> bool:
        now = self.place.get(self.key)
        return now is not self.tensor or not torch.equal(self.tensor, self.before)

    def put_back(self) -> None:
        self.place[self.key] = self.tensor
        if not torch.equal(self.tensor, self.before):
            self.tensor.copy_(self.before)


def modes_of(model: nn.Module, run: Callable[[], object]) -> Modes:
    """Return the modes of a network: two where a layer keeps running statistics, else ``batch`` alone.

    A layer keeps them if its own tensors move in a pass in training mode. So BatchNorm, InstanceNorm that tracks, and
    layers that others have written are found alike, and frozen ones are not.

    Args:
        model: the network.
        run: passes a batch through it.
    """
    candidates = list(dict.fromkeys(held.module for held in _held(model)))
    if not candidates:
        return {"batch": ()}
    with mode(model, candidates) as held, torch.no_grad():
        run()
        moved = {one.module for one in held if one.moved}
    layers = [module for module in candidates if module in moved]
    return {"batch": layers, "running": ()} if layers else {"batch": ()}


@contextmanager
def mode(model: nn.Module, training: Sequence[nn.Module]) -> Iterator[list[_Held]]:
    """Put the network in evaluation mode, but for some layers, and put buffers and modes back at the end.

    Dropout is off, so that a perturbation alone changes the outputs.
    """
    modes = {module: module.training for module in model.modules()}
    held = _held(model)
    model.eval()
    for module in training:
        module.training = True  # of its own forward alone: train() would reach the modules inside, such as dropout
    try:
        yield held
    finally:
        for module, before in modes.items():
            module.training = before
        with torch.no_grad():
            for one in held:
                one.put_back()


def _held(model: nn.Module) -> list[_Held]:
    return [
        _Held(module, place, key, value, value.detach().clone())
        for module in model.modules()
        for place in (module._buffers, vars(module))
        for key, value in place.items()
        if isinstance(value, Tensor)
    ]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave weights, gradients and all random states as they were, to the bit, also after an exception.

    Within it gradients can be computed, even where the caller has switched that off.
    """
    params = list(model.parameters())
    weights = [param.detach().clone() for param in params]
    gradients = [param.grad for param in params]
    device = params[0].device
    random = random_state(device)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        set_random_state(random, device)
        with torch.no_grad():
            for param, weight, gradient in zip(params, weights, gradients, strict=True):
                param.grad = gradient
                if not torch.equal(param.detach(), weight):
                    param.copy_(weight)
