"""What a forward pass changes beside the graph: buffers, frozen parameters, and tensors that layers keep."""

import weakref
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .._vectors.foreach import Snapshot
from .model import ModelInfo

__all__ = ["ForwardState"]


class ForwardState:
    """The state that a model's forward passes move, kept as the first pass of a step leaves it.

    - Buffers: running statistics, queues, counters.
    - Parameters that need no gradient: a momentum encoder's (MoCo, BYOL). What the last pass alone is seen to change
      keeps that change. Changes through ``.data`` are not seen, and are put back unless these parameters are larger
      than the trained ones, as under LoRA: there only those are copied that the first pass is seen to change.
    - Tensors in plain attributes of modules, where the first pass is seen to change or to replace them.

    Which modules hold tensors in attributes is looked up in the first step. What layers keep in numbers, in lists or
    elsewhere cannot be seen.

    Args:
        model: what is known of the model, before the first pass.
    """

    def __init__(self, model: ModelInfo) -> None:
        self._model, self._modules = model, model.modules
        self._frozen, self._all_frozen = model.frozen, model.copies_frozen
        self._frozen_before = [_mark(param) for param in self._frozen]
        self._attributes_before = {(m, name): (weakref.ref(t), _mark(t)) for m, name, t in self._found()}
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._params: list[tuple[Tensor, Tensor]] = []
        self._attributes: list[tuple[nn.Module, str, Tensor]] = []
        self._unseen: list[tuple[Tensor, _Mark]] = []
        self._copies = self._unseen_copies = Snapshot(())

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
        marks = list(map(_mark, self._frozen))
        seen = [mark != before for mark, before in zip(marks, self._frozen_before, strict=True)]
        self._params = [(param, param.data) for param, changed in zip(self._frozen, seen, strict=True) if changed]
        rest = [] if not self._all_frozen else zip(self._frozen, marks, seen, strict=True)
        self._unseen = [(param, mark) for param, mark, changed in rest if not changed]
        self._attributes = [entry for entry in self._found() if self._has_changed(*entry)]
        if self._model.attributes is None:
            self._model.attributes = [(module, name) for module, name, _ in self._found()]
        kept = [*(b for _, _, b in self._buffers), *(data for _, data in self._params)]
        kept += [tensor for _, _, tensor in self._attributes]
        once = dict(zip(map(id, kept), kept, strict=True))
        with torch.no_grad():
            self._copies = Snapshot(once.values())
            self._unseen_copies = Snapshot([param.data for param, _ in self._unseen])

    def _found(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Tensors in attributes of modules, without those that are part of a graph."""
        places = self._model.attributes
        if places is None:
            places = [(m, name) for m in self._modules for name, value in vars(m).items() if type(value) is Tensor]
        found = [(module, name, vars(module).get(name)) for module, name in places]
        return [(m, n, t) for m, n, t in found if type(t) is Tensor and not (t.requires_grad or t.is_nested)]

    def _has_changed(self, module: nn.Module, name: str, tensor: Tensor) -> bool:
        before, mark = self._attributes_before.get((module, name), (None, None))
        unseen = tensor.is_inference()  # it has no version
        return before is None or before() is not tensor or unseen or _mark(tensor) != mark

    def restore(self) -> None:
        """Put it back, also where a layer has put a new tensor in place of the old one."""
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer
        for module, name, tensor in self._attributes:
            vars(module)[name] = tensor
        for param, data in self._params:
            if _mark(param)[1] != _mark(data)[1]:
                param.data = data
        last_pass_alone = [param.data for param, mark in self._unseen if _mark(param) != mark]
        with torch.no_grad():
            self._copies.restore()
            theirs = Snapshot(last_pass_alone)
            self._unseen_copies.restore()
            theirs.restore()


_Mark: TypeAlias = tuple[int | None, int]


def _mark(tensor: Tensor) -> _Mark:
    """Return what changes when a tensor is changed in place, or is given other data."""
    version = None if tensor.is_inference() else tensor._version  # no public way to see a change in place
    return version, tensor.data_ptr() if tensor.layout == torch.strided else 0
