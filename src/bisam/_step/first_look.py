"""One look at the graph of the first step's losses: what two passes would spoil in silence."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm  # no public base

from .model import ModelInfo

__all__ = ["FirstLook"]


class FirstLook:
    """Looks at the losses of the first step that climbs, and at no later one.

    Args:
        model: what is known of the model.
        moving: returns the parameters that the climb has moved, in parts.
        models: returns what is known of the models whose steps are running, this one among them.
    """

    def __init__(
        self, model: ModelInfo, moving: Callable[[], list[list[Tensor]]], models: Callable[[], list[ModelInfo]]
    ) -> None:
        self._model, self._moving, self._models = model, moving, models
        self._at_w: dict[Any, None] = {}  # nodes are kept until the next pass, so that one can be found again

    def at_w(self, loss: Tensor) -> None:
        """Warn of running statistics that nobody puts back, and remember the graph."""
        nodes = list(_nodes(loss))
        self._at_w.update(dict.fromkeys(nodes))
        known = _Statistics([module for model in self._models() for module in model.modules])
        count = sum(map(known.misses, nodes))
        if count:
            warnings.warn(
                f"{count} normalisation layers keep running statistics that the optimizer does not know, so every pass "
                "updates them, the last one at w + eps: build the optimizer with the whole model, model=model",
                stacklevel=4,
            )

    def at_eps(self, loss: Tensor) -> None:
        """Refuse a loss whose graph begins in an earlier pass, at other weights.

        Raises:
            RuntimeError: a parameter that has moved is reached through a part of the graph that is older.
        """
        at_w, self._at_w = self._at_w, {}
        shared = [node for node in _nodes(loss) if node in at_w and not hasattr(node, "variable")]
        reached = {id(leaf.variable) for node in shared for leaf, _ in node.next_functions if hasattr(leaf, "variable")}
        moved = next((param for part in self._moving() for param in part if id(param) in reached), None)
        if moved is not None:
            raise RuntimeError(
                f"parameter {self._model.params.name(moved)} has its part in this loss through a forward pass that ran "
                "before the climb, at w: call the whole model inside the loop, "
                "`for objective in opt.passes(): objective(model(x), y).backward()`, without retain_graph"
            )


class _Statistics:
    """The running statistics that are put back.

    Args:
        modules: of all the models whose steps are running.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
        self._pointers = {buffer.data_ptr() for buffer in buffers if buffer.layout == torch.strided}
        # Copies of statistics have other addresses: InstanceNorm makes them, DataParallel's replicas are some.
        self._copied = any(isinstance(m, _InstanceNorm | nn.DataParallel) for m in modules)

    def misses(self, node: Any) -> bool:
        """Whether a node of the graph is a layer's that has updated statistics which are not among these."""
        if "BatchNorm" not in node.name():
            return False
        try:
            training, mean = node._saved_training, node._saved_running_mean  # documented for autograd's nodes
        except (AttributeError, RuntimeError):  # SyncBatchNorm has a node of its own, and only while it trains
            return not self._pointers
        return bool(training) and mean is not None and not self._copied and mean.data_ptr() not in self._pointers


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Yield every node of a graph once."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]
