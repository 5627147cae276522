"""What processes send each other, counted: every collective, whoever calls it."""

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Sent", "count_communication"]


class Sent(NamedTuple):
    """One collective.

    Example:
        >>> from bisam.testing import Sent
        >>> Sent("all_reduce", nbytes=8).what
        'all_reduce'

    Attributes:
        what: ``"all_reduce"``, ``"all_gather"``, ``"reduce_scatter"``, ``"broadcast"``, ..., as torch names it.
        nbytes: of the whole tensor that is reduced, gathered or scattered. How often it crosses a wire depends on the
            backend and on the number of processes.
    """

    what: str
    nbytes: int


class count_communication(TorchDispatchMode):  # noqa: N801 - used like a function
    """Context manager that records the collectives of this process, those of DDP, FSDP2 and DTensor among them.

    Example:
        >>> from bisam.testing import count_communication
        >>> with count_communication() as counted:
        ...     _ = torch.ones(2) + 1  # a step, in a process group
        >>> counted.sent
        []

    Attributes:
        sent: the collectives, in order.
    """

    _WITHOUT_DATA = ("wait", "wrap", "barrier", "monitored_barrier")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sent: list[Sent] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any("distributed" in kind.__module__ for kind in types):
            return NotImplemented  # a DTensor's operation: it comes back as those of its parts
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional", "c10d_functional"):
            what = _name(func.__name__.partition(".")[0])
            if not what.startswith(self._WITHOUT_DATA):
                self.sent.append(Sent(what, max(_nbytes(args), _nbytes(result))))
        return result

    def total(self, what: str = "") -> int:
        """Bytes of all that was sent, or of the collectives of one name."""
        return sum(one.nbytes for one in self.sent if not what or one.what == what)


def _name(operation: str) -> str:
    """One name for the ways in which torch calls a collective: ``_allgather_base_`` and ``all_gather_into_tensor``."""
    plain = operation.strip("_")
    known = {"allreduce": "all_reduce", "allgather": "all_gather", "alltoall": "all_to_all"}
    plain = next((name + plain[len(old) :] for old, name in known.items() if plain.startswith(old)), plain)
    names = ("all_reduce", "all_gather", "all_to_all", "reduce_scatter", "broadcast")
    return next((name for name in names if plain.startswith(name)), plain)


def _nbytes(tree: Any) -> int:
    """Bytes of the largest tensor among arguments, or of a list of them together."""
    entries = tree if isinstance(tree, list | tuple) else [tree]
    return max((sum(t.nbytes for t in tree_leaves(entry) if isinstance(t, Tensor)) for entry in entries), default=0)
