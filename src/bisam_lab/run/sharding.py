"""FSDP2: which parts of a network are gathered together, and how shards become whole tensors again."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from .fabric import Fabric, ModelParallelStrategy

__all__ = ["blocks", "reshard", "shard", "whole", "whole_on_cpu"]


def shard(fabric: Fabric, model: nn.Module) -> None:
    """Let each process hold a shard of the network's weights, where the engine is FSDP2.

    It changes the weights in place, so the optimizer is built after it. A block's weights are gathered for its own
    forward and backward pass, and those outside of blocks for the whole one. A network that shares weights between its
    parts is gathered as a whole.
    """
    if not isinstance(fabric.strategy, ModelParallelStrategy):
        return
    mesh = fabric.strategy.device_mesh["data_parallel"]
    named = [param for _, param in model.named_parameters(remove_duplicate=False)]
    for block in blocks(model) if len(set(named)) == len(named) else ():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of a network's outermost lists and sequences of layers that have weights.

    They are a transformer's layers, and a residual network's blocks.
    """
    for child in model.children():
        if isinstance(model, nn.Sequential | nn.ModuleList) and not isinstance(child, nn.Sequential | nn.ModuleList):
            if any(True for _ in child.parameters()):
                yield child
        else:
            yield from blocks(child)


def reshard(model: nn.Module) -> None:
    """Let go of weights that were gathered for the last pass, so that the network's are those of its optimizer."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """Return a sharded tensor as a whole one, together with all processes that hold a shard; others as they are."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def whole_on_cpu(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """Return a network's state with whole tensors on the CPU, gathered one by one; empty in processes that do not keep.

    Args:
        state: by name; of all processes in the same order.
        keep: whether this process wants it.
    """
    there: dict[str, Any] = {}
    for name, value in state.items():
        found = whole(value)
        if keep:
            there[name] = found.detach().cpu() if isinstance(found, Tensor) else found
    return there
