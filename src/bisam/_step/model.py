"""What a step must know of the model: its parameters' names and owners, its wrappers, its buffers."""

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from .._vectors.vector import ParamInfo

__all__ = ["Averaging", "ModelInfo"]


class ModelInfo:
    """A model as the optimizer of its parameters sees it.

    Attributes:
        module: the model, or None where the optimizer was given none.
        params: names and owners of its parameters.
        ddp: its parts that DDP wraps.
        attributes: modules, with the names of their attributes, that hold plain tensors; None until it is looked up.

    Raises:
        ValueError: the model has none of the optimizer's parameters; the parameters are sharded and there is no model;
            FSDP1.
    """

    def __init__(self, module: nn.Module | None, base: Optimizer) -> None:
        self.module = module
        self.params = _param_info(base, module)
        self.attributes: list[tuple[nn.Module, str]] | None = None
        self.look()

    def look(self) -> None:
        """Look at the modules as they are now: an engine may have wrapped some since the last step.

        Raises:
            ValueError: FSDP1, whose flat shards have no norm of their own.
        """
        self._modules = [] if self.module is None else list(self.module.modules())
        self.ddp: list[DistributedDataParallel] = []
        self._fsdp: list[Any] = []
        for module in self._modules:
            if isinstance(module, DistributedDataParallel):
                self.ddp.append(module)
            elif hasattr(module, "set_requires_gradient_sync"):
                self._fsdp.append(module)
            elif type(module).__name__ == "FullyShardedDataParallel":
                raise ValueError(
                    "model holds a FullyShardedDataParallel (FSDP1) module, whose norms would be taken per shard: use "
                    "torch.distributed.fsdp.fully_shard (FSDP2), which is supported"
                )

    @property
    def modules(self) -> list[nn.Module]:
        """Every module of it, itself first; none where it is unknown."""
        return self._modules

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter of it once, trained or not."""
        return list(
            dict.fromkeys([p for module in self._modules for p in module._parameters.values() if p is not None])
        )

    def others(self, own: set[Tensor]) -> list[Tensor]:
        """Return its parameters that are not among ``own``: another optimizer's, or nobody's."""
        return [param for param in self.parameters if param not in own]

    # -- engines' wrappers (DDP, FSDP) ---------------------------------------------------------------------------

    @property
    def distributed(self) -> bool:
        """Whether DDP or FSDP wraps it, or a part of it."""
        return bool(self.ddp or self._fsdp)

    @property
    def averages_gradients(self) -> bool:
        """Whether a backward pass now averages gradients over the workers, if there are several."""
        return all(module.require_backward_grad_sync for module in self.ddp)

    def check_synchronised(self) -> None:
        """Refuse FSDP's accumulation without communication, which leaves the parameters without gradients.

        Raises:
            RuntimeError: ``set_requires_gradient_sync(False)`` is in force.
        """
        for module in self._fsdp:
            if not all(group.reduce_grads for group in _fsdp_groups(module)):
                raise RuntimeError(
                    "set_requires_gradient_sync(False) keeps FSDP's gradients from the parameters, so there is nothing "
                    "to climb: accumulate with gradient synchronisation on"
                )

    def refresh(self) -> None:
        """Make FSDP gather the weights again: an unsharded copy would hide that they have moved."""
        for module in self._fsdp:
            module.reshard()


class Averaging:
    """Lets DDP average the gradients of the passes that follow, or leave each worker its own, until it is over.

    DDP learns a static graph in its first backward pass, so that pass must be averaged.

    Args:
        model: what is known of the model.
        wanted: whether the gradients are to be averaged.
    """

    def __init__(self, model: ModelInfo, wanted: bool) -> None:
        self._before = [(m, m.require_backward_grad_sync, wanted or _unlearnt(m)) for m in model.ddp]
        for module, _, ours in self._before:
            module.require_backward_grad_sync = ours

    def restore(self) -> None:
        """Switch back, except where somebody else has switched since."""
        for module, before, ours in self._before:
            if before != ours and module.require_backward_grad_sync == ours:
                module.require_backward_grad_sync = before
        self._before = []


def _param_info(base: Optimizer, model: nn.Module | None) -> ParamInfo:
    """Return what the model knows of the parameters, or a base that was built of named parameters."""
    params = [p for group in base.param_groups for p in group["params"]]
    if model is None:
        if any(hasattr(param, "device_mesh") for param in params):
            raise ValueError("model=None, and the parameters are sharded (DTensor): pass the model that shards them")
        named = [zip(group.get("param_names", ()), group["params"], strict=False) for group in base.param_groups]
        return ParamInfo({param: name for group in named for name, param in group}, {})
    names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
    if not any(param in names for param in params):
        raise ValueError("model= has none of the parameters of base: pass the model that base was built on")
    owners: dict[Tensor, list[nn.Module]] = {}
    for module in model.modules():
        for param in module.parameters(recurse=False):
            owners.setdefault(param, []).append(module)
    return ParamInfo(names, owners)


def _unlearnt(module: DistributedDataParallel) -> bool:
    # DDP says nowhere else whether its first backward pass has queued the reduction of a static graph.
    return bool(module.static_graph) and not module._static_graph_delay_allreduce_enqueued


def _fsdp_groups(module: Any) -> list[Any]:
    # FSDP2 has a public setter for reduce_grads and no getter.
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None)  # torch 2.12; before, there was one at most
    return list(groups) if groups is not None else [g for g in [state._fsdp_param_group] if g is not None]
