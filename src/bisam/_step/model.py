"""What a step must know of the model: its parameters' names and owners, its wrappers, its buffers."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .._vectors.shards import local
from .._vectors.vector import ParamInfo

__all__ = ["Averaging", "ModelInfo", "check_flattened"]

_FSDP1 = (
    "whose norms would be taken per shard: use torch.distributed.fsdp.fully_shard (FSDP2); in Accelerate "
    "fsdp_version: 2, in Lightning ModelParallelStrategy, in Composer FSDP2Config"
)


class ModelInfo:
    """A model as the optimizer of its parameters sees it.

    Attributes:
        module: the model, or None where the optimizer was given none.
        params: names and owners of its parameters.
        ddp: its parts that DDP wraps.
        attributes: modules, with the names of their attributes, that hold plain tensors; None until it is looked up.
        copies_frozen: whether :attr:`frozen` are few enough to be copied in every step.

    Raises:
        ValueError: the model has none of the optimizer's parameters; the parameters are sharded and there is no model;
            they are FSDP's gathered copies; FSDP1.
    """

    def __init__(self, module: nn.Module | None, base: Optimizer) -> None:
        self.module = module
        self.attributes: list[tuple[nn.Module, str]] | None = None
        self.ddp: list[DistributedDataParallel] = []
        self._fsdp: list[Any] = []
        self._modules: list[nn.Module] = []
        self._kinds: list[type] = []
        self._children: list[nn.Module | None] = []
        self._held: list[Tensor | None] = []
        self._parameters: list[Tensor] = []
        self._own: list[Tensor] = []
        self._others: list[Tensor] = []
        self._needing: list[bool] = []
        self._frozen: list[Tensor] = []
        self.copies_frozen = True
        self.look()
        if self._fsdp:
            _check_shards(base)
        self.params = _param_info(base, module)

    def look(self) -> None:
        """Look at the modules and parameters as they are now: an engine may have wrapped some since the last step.

        Walking through a tree of modules takes as long as the arithmetic of a step. So the tree is walked where it has
        changed: other children, other classes (``fully_shard`` changes them in place), other parameters. Weights that
        FSDP has gathered for a pass without ``backward()``, such as an evaluation, are let go first: the optimizer's
        are the shards.

        Raises:
            ValueError: FSDP1, whose flat shards have no norm of their own.
        """
        if self.module is None:
            return
        kinds = list(map(type, self._modules))
        if not self._modules or kinds != self._kinds or not _same(_children(self._modules), self._children):
            self._walk(self.module)
        self.refresh()
        held: list[Tensor | None] = [param for module in self._modules for param in module._parameters.values()]
        if not _same(held, self._held):
            if self._held:
                self.params = _names_and_owners(self.module)
            self._held, self._own, self._needing = held, [], []
            self._parameters = list(dict.fromkeys([param for param in held if param is not None]))

    def _walk(self, root: nn.Module) -> None:
        self.attributes = None
        self._modules = list(root.modules())
        self._kinds, self._children = list(map(type, self._modules)), _children(self._modules)
        self.ddp, self._fsdp = [], []
        for module in self._modules:
            if isinstance(module, DistributedDataParallel):
                self.ddp.append(module)
            elif hasattr(module, "set_requires_gradient_sync"):
                self._fsdp.append(module)
            elif type(module).__name__ == "FullyShardedDataParallel":
                self._kinds = []  # refused in every step
                raise ValueError(f"model holds a FullyShardedDataParallel (FSDP1) module, {_FSDP1}")

    @property
    def modules(self) -> list[nn.Module]:
        """Every module of it, itself first; none where it is unknown."""
        return self._modules

    def others(self, own: list[Tensor]) -> list[Tensor]:
        """Return its parameters that are not among ``own``: another optimizer's, or nobody's."""
        if not self._own or not _same(own, self._own):
            known = set(own)
            self._own, self._others = own, [param for param in self._parameters if param not in known]
        return self._others

    @property
    def frozen(self) -> list[Tensor]:
        """Its parameters that need no gradient, but for shards."""
        needing = [param.requires_grad for param in self._parameters]
        if needing != self._needing:
            still = [param for param, needs in zip(self._parameters, needing, strict=True) if not needs]
            self._frozen = [param for param in still if not hasattr(param, "device_mesh")]
            lazy = any(map(is_lazy, self._parameters))  # without a size until the first forward pass
            self._needing = [] if lazy else needing
            self.copies_frozen = lazy or 2 * _size(self._frozen) <= _size(self._parameters)
        return self._frozen

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
        """Make FSDP gather the weights again: a gathered copy would hide that they have moved."""
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


def _size(params: Sequence[Tensor]) -> int:
    return sum(map(Tensor.numel, params))


def _children(modules: Sequence[nn.Module]) -> list[nn.Module | None]:
    return [child for module in modules for child in module._modules.values()]


def _same(those: Sequence[object], these: Sequence[object]) -> bool:
    """Whether two lists hold the same objects."""
    return len(those) == len(these) and all(map(operator.is_, those, these))


def _param_info(base: Optimizer, model: nn.Module | None) -> ParamInfo:
    """Return what the model knows of the parameters, or a base that was built of named parameters."""
    params = [p for group in base.param_groups for p in group["params"]]
    _check_placements(params)
    if model is None:
        if any(hasattr(param, "device_mesh") for param in params):
            raise ValueError("model=None, and the parameters are sharded (DTensor): pass the model that shards them")
        named = [zip(group.get("param_names", ()), group["params"], strict=False) for group in base.param_groups]
        return ParamInfo({param: name for group in named for name, param in group}, {})
    info = _names_and_owners(model)
    if not any(param in info.names for param in params):
        raise ValueError("model= has none of the parameters of base: pass the model that base was built on")
    return info


def check_flattened(params: Sequence[Tensor]) -> None:
    """Refuse parameters that FSDP1 has wrapped behind our back, after the optimizer was built on the bare model.

    Raises:
        ValueError: with the way to FSDP2.
    """
    if any(hasattr(param, "_fsdp_flattened") for param in params):  # the mark by which torch itself knows them
        raise ValueError(f"the parameters of base are FullyShardedDataParallel's (FSDP1), {_FSDP1}")


def _check_placements(params: Sequence[Any]) -> None:
    """Refuse weights that lie as partial sums: neither a norm nor an update of one is that of its parts."""
    for param in params:
        if any(placement.is_partial() for placement in getattr(param, "placements", ())):
            raise ValueError(
                f"a parameter of shape {tuple(param.shape)} has placements {tuple(param.placements)}, and a weight may "
                "not be a partial sum: give it Shard or Replicate, param.redistribute(placements=[Replicate(), ...])"
            )


def _check_shards(base: Optimizer) -> None:
    """Refuse an optimizer that was built on gathered copies: the gradients are the shards', so it would train nothing.

    The model must have let go of its copies before, for then they have no storage.
    """
    for part in (local(param) for group in base.param_groups for param in group["params"]):
        if part.layout == torch.strided and part.numel() > 0 and part.untyped_storage().size() == 0:
            raise ValueError(
                f"base holds a copy of shape {tuple(part.shape)} that fully_shard had gathered for a forward pass, and "
                "its shards are what trains: call model.reshard() before base is built on model.parameters()"
            )


def _names_and_owners(model: nn.Module) -> ParamInfo:
    names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
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
