"""One pass of several networks of one architecture: ``torch.func.vmap`` over their stacked weights."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..run.asking import Forward
from ..run.fabric import Fabric
from .normalise import with_stackable_norms

__all__ = ["StackedNetwork", "side_by_side"]


class StackedNetwork:
    """Computes the passes of networks of one architecture together.

    ``vmap`` turns convolutions into grouped ones and linear layers into batched products. In every pass the weights are
    copied into stacks, a millionth of the work of a pass, so autograd gives each network's parameters their gradients,
    and their optimizers may do with them what they like. Buffers that have changed are copied back.

    Args:
        model: one of the networks, bare; it is copied.

    Attributes:
        unknown_statistics: whether a layer keeps running statistics in a way that is not stacked.
    """

    def __init__(self, model: nn.Module) -> None:
        self._frame = with_stackable_norms(copy.deepcopy(model)).requires_grad_(False)
        self._params = [name for name, _ in model.named_parameters()]
        self._buffers = [name for name, _ in model.named_buffers()]
        self.unknown_statistics = any(getattr(m, "track_running_stats", False) for m in self._frame.modules())
        self._tied = len(self._params) < sum(1 for _ in model.named_parameters(remove_duplicate=False))
        self._places: dict[nn.Module, dict[str, tuple[dict[str, Tensor], str]]] = {}
        self._pass = vmap(self._one, in_dims=(0, 0, 1))

    def __call__(self, requests: Sequence[Forward]) -> list[Tensor]:
        """Return the output of each request. All have inputs of one shape, and networks in one mode.

        Raises:
            RuntimeError: ``vmap`` has no rule for something in the network, such as dropout.
        """
        models = [request.model for request in requests]
        training = requests[0].net.training
        buffers = self.stacked(models, self._buffers)
        versions = [buffer._version for buffer in buffers.values()]  # no public way to see a change in place
        with torch.set_grad_enabled(training):
            params, x = self.stacked(models, self._params), side_by_side([request.x for request in requests])
            out = self.run(params, buffers, x, requests[0].fabric, training=training)
        changed = [n for (n, b), version in zip(buffers.items(), versions, strict=True) if b._version != version]
        self._give_back(models, {name: buffers[name] for name in changed})
        return list(out.unbind(0))

    def run(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, fabric: Fabric, *, training: bool
    ) -> Tensor:
        """Return the outputs (S, B, ...) of networks with stacked parameters and buffers, which training moves.

        Args:
            params: by name, each (S, ...).
            buffers: by name, each (S, ...).
            x: inputs (B, S, ...), of :func:`side_by_side`.
            fabric: the engine.
            training: mode of the networks.
        """
        precision = fabric.strategy.precision
        self._frame.train(training)
        with _attention_that_stacks(x.device), precision.forward_context():
            out = self._pass(params, buffers, precision.convert_input(x))
        outputs: Tensor = precision.convert_output(out)
        return outputs

    def _one(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(self._frame, (params, buffers), (x,), tie_weights=self._tied)
        return output

    def stacked(self, models: Sequence[nn.Module], names: Sequence[str]) -> dict[str, Tensor]:
        """Return parameters or buffers of several networks by name, each a new tensor (S, ...)."""
        each = [self._tensors(model, names) for model in models]
        return {name: torch.stack(tensors) for name, *tensors in zip(names, *each, strict=True)}

    @torch.no_grad()
    def _give_back(self, models: Sequence[nn.Module], buffers: dict[str, Tensor]) -> None:
        each = [self._tensors(model, list(buffers)) for model in models]
        for stacked, *tensors in zip(buffers.values(), *each, strict=True):
            torch._foreach_copy_(tensors, list(stacked.unbind(0)))

    def _tensors(self, model: nn.Module, names: Sequence[str]) -> list[Tensor]:
        """Return parameters or buffers by name, as they are now: a buffer may be another tensor than in the last pass.

        The places where they lie are looked up once.
        """
        places = self._places.get(model)
        if places is None:
            places = self._places[model] = {name: _place(model, name) for name in (*self._params, *self._buffers)}
        return [held[key] for held, key in map(places.__getitem__, names)]


@contextlib.contextmanager
def _attention_that_stacks(device: torch.device) -> Iterator[None]:
    """Let attention use the kernels that ``vmap`` has rules for: not the CPU's flash kernel, nor the fused layer."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """Stack inputs (B, ...) along a second axis: (B, S, ...).

    On a CPU the channels of a pixel of images lie together, those of all networks: small images have fewer pixels than
    the channels are many, and BatchNorm's inner loop is over what lies together.
    """
    x = torch.stack(list(inputs), 1)
    if x.dim() != 5 or x.device.type != "cpu":
        return x
    return x.flatten(1, 2).contiguous(memory_format=torch.channels_last).view_as(x)


def _place(model: nn.Module, name: str) -> tuple[dict[str, Tensor], str]:
    """Return the dictionary of its layer that holds a parameter or a buffer, and the key in it."""
    owner, _, key = name.rpartition(".")
    layer = model.get_submodule(owner)
    held: Any = layer._parameters if key in layer._parameters else layer._buffers  # no public way to either
    return held, key
