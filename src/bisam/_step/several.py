"""Several base optimizers as one: Muon for the matrices and AdamW for the rest, a backbone's and a head's."""

from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["SeveralOptimizers"]


class SeveralOptimizers(Optimizer):
    """Optimizers over different parameters that take their steps together.

    Its groups are the optimizers' own, one after the other, and so is its state. Hence a scheduler may hold one of
    them, or all. Its state dict has torch's format, as if one optimizer had all the groups.

    Args:
        optimizers: at least one; no parameter is in two of them.

    Attributes:
        optimizers: as given.

    Raises:
        ValueError: none, the same one twice, or a parameter in two of them.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        if not self.optimizers:
            raise ValueError("base=[] holds no optimizer: pass one, or several in a list, SAM([muon, adamw])")
        if len({id(optimizer) for optimizer in self.optimizers}) < len(self.optimizers):
            raise ValueError("base holds one optimizer twice: name each once")
        seen: dict[Tensor, int] = {}
        for number, param in self._numbered():
            if seen.setdefault(param, number) != number:
                raise ValueError(
                    f"base[{seen[param]}] and base[{number}] share a parameter of shape {tuple(param.shape)}, which "
                    "would take two steps: give each parameter to one of the optimizers"
                )
        shared = set.intersection(*(set(optimizer.defaults) for optimizer in self.optimizers))
        self.defaults = {key: self.optimizers[0].defaults[key] for key in shared}
        self._groups: list[dict[str, Any]] = []  # one list for good: whoever holds it sees groups that come later
        super().__setstate__({})  # hooks and a profiled step(): Optimizer.__init__ would build groups of its own

    def _numbered(self) -> Iterator[tuple[int, Tensor]]:
        for number, optimizer in enumerate(self.optimizers):
            for group in optimizer.param_groups:
                yield from ((number, param) for param in group["params"])

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all the optimizers, in their order."""
        self._groups[:] = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return self._groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        start = 0
        for optimizer in self.optimizers:
            stop = start + len(optimizer.param_groups)
            optimizer.param_groups, start = groups[start:stop], stop

    @property
    def state(self) -> Any:
        """The state of every parameter, read from and written to the optimizer that has it."""
        return _States(self)

    @state.setter
    def state(self, state: MutableMapping[Tensor, Any]) -> None:
        for optimizer in self.optimizers:
            own = {param for group in optimizer.param_groups for param in group["params"]}
            optimizer.state = defaultdict(dict, {param: kept for param, kept in state.items() if param in own})

    def set_defaults(self, entries: dict[str, Any]) -> None:
        """Enter defaults, for groups that are added later, in every optimizer."""
        self.defaults |= entries
        for optimizer in self.optimizers:
            optimizer.defaults |= entries

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let every optimizer update its weights."""
        value = None if closure is None else closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the optimizer that it names, ``{"params": ..., "optimizer": adamw}``.

        Raises:
            ValueError: it names none of them.
        """
        owner = param_group.pop("optimizer", None)
        if not any(owner is optimizer for optimizer in self.optimizers):
            raise ValueError(
                f"param_group has optimizer={owner!r}, and base holds several: say whose group it is, "
                '{"params": ..., "optimizer": adamw}, with one of ' + ", ".join(self._names)
            )
        owner.add_param_group(param_group)

    @property
    def _names(self) -> list[str]:
        return [f"opt.base.optimizers[{n}] ({type(o).__name__})" for n, o in enumerate(self.optimizers)]

    def train(self, mode: bool = True) -> None:
        """Forward to optimizers with modes, such as schedule-free ones."""
        for optimizer in self.optimizers:
            switch = getattr(optimizer, "train" if mode else "eval", None)
            if callable(switch):
                switch()

    def eval(self) -> None:
        """Forward to optimizers with modes."""
        self.train(False)

    def state_dict(self) -> dict[str, Any]:
        """Return one state dict: parameters are counted through all the groups."""
        state: dict[Any, Any] = {}
        groups: list[dict[str, Any]] = []
        for optimizer in self.optimizers:
            own, first = optimizer.state_dict(), sum(len(group["params"]) for group in groups)
            state |= {first + key: kept for key, kept in own["state"].items()}
            groups += [{**group, "params": [first + key for key in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` of the same optimizers has returned.

        Raises:
            ValueError: it has another number of groups.
        """
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"state_dict has {len(groups)} param groups and base has {len(self.param_groups)}, of "
                f"{', '.join(self._names)}: load one that was saved by the same optimizers"
            )
        for optimizer in self.optimizers:
            own, groups = groups[: len(optimizer.param_groups)], groups[len(optimizer.param_groups) :]
            keys = {key for group in own for key in group["params"]}
            kept = {key: value for key, value in state_dict["state"].items() if key in keys}
            optimizer.load_state_dict({"state": kept, "param_groups": own})

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "defaults": self.defaults, "_groups": []}

    def __repr__(self) -> str:
        return f"[{', '.join(repr(optimizer) for optimizer in self.optimizers)}]"


class _States(MutableMapping[Tensor, Any]):
    """The states of several optimizers as one mapping from parameters."""

    def __init__(self, joined: SeveralOptimizers) -> None:
        self._owners = joined.optimizers
        self._joined = joined

    def _of(self, param: Tensor) -> Any:
        owners = {known: self._owners[number].state for number, known in self._joined._numbered()}
        if param not in owners:
            raise KeyError(param)
        return owners[param]

    def __getitem__(self, param: Tensor) -> Any:
        found = next((optimizer.state for optimizer in self._owners if param in optimizer.state), None)
        return self._of(param)[param] if found is None else found[param]

    def __setitem__(self, param: Tensor, kept: Any) -> None:
        self._of(param)[param] = kept

    def __delitem__(self, param: Tensor) -> None:
        del self._of(param)[param]

    def __contains__(self, param: object) -> bool:
        return any(param in optimizer.state for optimizer in self._owners)

    def __iter__(self) -> Iterator[Tensor]:
        return (param for optimizer in self._owners for param in optimizer.state)

    def __len__(self) -> int:
        return sum(len(optimizer.state) for optimizer in self._owners)
