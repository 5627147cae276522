"""What a forward pass changes beside the graph: buffers, frozen parameters, and tensors that layers keep."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._vectors.foreach import Snapshot
from .model import ModelInfo

__all__ = ["ForwardState"]


class ForwardState:
    """The state that a model's forward passes move, kept as the first pass of a step leaves it.

    - Buffers: running statistics, queues, counters.
    - Parameters that need no gradient: a momentum encoder's (MoCo, BYOL). Where they are larger than the trained ones,
      as under LoRA, those are kept that the first pass is seen to change; a change through ``.data`` is not seen.
    - Tensors in plain attributes of modules, where the first pass is seen to change or to replace them.

    Which modules hold tensors in attributes is looked up in the first step. What layers keep in numbers, in lists or
    elsewhere cannot be seen.

    Args:
        model: what is known of the model, before the first pass.
    """

    def __init__(self, model: ModelInfo) -> None:
        self._model, self._modules = model, model.modules
        self._frozen, self._all_frozen = _frozen_parameters(model.parameters)
        self._frozen_before = [] if self._all_frozen else [(p._version, p.data_ptr()) for p in self._frozen]
        self._attributes_before = {(m, name): (id(t), t._version) for m, name, t in self._found()}
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._params: list[tuple[Tensor, Tensor]] = []
        self._attributes: list[tuple[nn.Module, str, Tensor]] = []
        self._copies = Snapshot(())

    @classmethod
    def now(cls, model: ModelInfo) -> "ForwardState":
        """Return the state as it stands now, to be put back after passes of any number."""
        state = cls(model)
        state._attributes_before = {}
        state.keep()
        return state

    def keep(self) -> None:
        """Copy what the first pass has left."""
        # Module._buffers is the only place to put a rebound buffer back: assignment goes through __setattr__ hooks.
        self._buffers = [(m, name, b) for m in self._modules for name, b in m._buffers.items() if b is not None]
        self._params = [(param, param.data) for param in self._moved_params()]
        self._attributes = [entry for entry in self._found() if self._has_changed(*entry)]
        if self._model.attributes is None:
            self._model.attributes = [(module, name) for module, name, _ in self._found()]
        kept = [*(b for _, _, b in self._buffers), *(data for _, data in self._params)]
        kept += [tensor for _, _, tensor in self._attributes]
        once = dict(zip(map(id, kept), kept, strict=True))
        with torch.no_grad():
            self._copies = Snapshot(once.values())

    def _moved_params(self) -> list[Tensor]:
        if self._all_frozen:
            return self._frozen
        both = zip(self._frozen, self._frozen_before, strict=True)
        return [param for param, before in both if (param._version, param.data_ptr()) != before]

    def _found(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Tensors in attributes of modules, without those that are part of a graph."""
        places = self._model.attributes
        if places is None:
            places = [(m, name) for m in self._modules for name, value in vars(m).items() if type(value) is Tensor]
        found = [(module, name, vars(module).get(name)) for module, name in places]
        return [(m, name, t) for m, name, t in found if type(t) is Tensor and not t.requires_grad]

    def _has_changed(self, module: nn.Module, name: str, tensor: Tensor) -> bool:
        return self._attributes_before.get((module, name)) != (id(tensor), tensor._version)

    def restore(self) -> None:
        """Put it back, also where a layer has put a new tensor in place of the old one."""
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer
        for module, name, tensor in self._attributes:
            vars(module)[name] = tensor
        for param, data in self._params:
            if param.data_ptr() != data.data_ptr():
                param.data = data
        with torch.no_grad():
            self._copies.restore()


def _frozen_parameters(parameters: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """Return the parameters that need no gradient, and whether they are few enough to be copied in every step."""
    frozen = [param for param in parameters if not param.requires_grad and not hasattr(param, "device_mesh")]
    if not frozen:
        return [], True
    size = sum(param.numel() for param in frozen)
    return frozen, 2 * size <= sum(param.numel() for param in parameters)
