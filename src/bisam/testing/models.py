"""The small network, its data and the instruments of the battery."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# The only way to see what is dispatched; torch documents both for this use, under these names.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bisam.optimizer import SharpnessAware

__all__ = ["Make", "Net", "batches", "bits", "count_around_passes", "count_operations", "run_steps"]

#: Makes the optimizer to be checked, around the model that it is given.
Make = Callable[[nn.Module], SharpnessAware]


class Net(nn.Module):
    """Linear - BatchNorm - ReLU - Linear - Linear (shared weight) with a frozen scale and an unused parameter.

    Example:
        >>> from bisam.testing import Net, batches
        >>> Net()(batches(1)[0][0]).shape
        torch.Size([16, 4])
    """

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 8, bias=False)  # a bias in front of BatchNorm has only rounding noise for gradient
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(dropout)
        self.middle = nn.Linear(8, 8)
        self.shared = nn.Linear(8, 8)
        self.shared.weight = self.middle.weight
        self.head = nn.Linear(8, 4)
        self.frozen = nn.Parameter(torch.full((8,), 0.5), requires_grad=False)
        self.unused = nn.Parameter(torch.tensor([-0.0, 1.0]))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 6) to logits (B, 4)."""
        x = self.dropout(torch.relu(self.norm(self.first(x))))
        logits: Tensor = self.head(torch.relu(self.shared(torch.relu(self.middle(x)))) * self.frozen)
        return logits


def batches(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Return ``count`` batches of 16 samples, x (16, 6) and y (16,), of a problem with structure in it.

    Example:
        >>> from bisam.testing import batches
        >>> x, y = batches(3)[0]
        >>> x.shape, y.shape
        (torch.Size([16, 6]), torch.Size([16]))
    """
    rng = torch.Generator().manual_seed(seed)
    truth = torch.randn(6, 4, generator=rng, dtype=torch.float64)
    xs = [torch.randn(16, 6, generator=rng, dtype=torch.float64) for _ in range(count)]
    return [(x, (x @ truth).argmax(1)) for x in xs]


def run_steps(model: nn.Module, opt: SharpnessAware, data: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on ``data`` with the five-line loop; return the last pass's loss of each step.

    Example:
        >>> from bisam import SAM
        >>> from bisam.testing import Net, batches, run_steps
        >>> model = Net()
        >>> opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
        >>> len(run_steps(model, opt, batches(3)))
        3
    """
    losses = []
    for x, y in data:
        for objective in opt.passes():
            loss = objective(model(x), y)
            loss.backward()
        losses.append(loss.item())
        opt.step()
        opt.zero_grad()
    return losses


class count_operations(TorchDispatchMode):  # noqa: N801 - used like a function
    """Context manager that records the dispatched operations that move data; views are not among them.

    Example:
        >>> from bisam.testing import count_operations
        >>> with count_operations() as counted:
        ...     _ = torch.ones(2) + 1

    Attributes:
        names: the operations.
        written: bytes of the tensors that they have made or changed.
        read: bytes of the tensors that they were given, but for the targets of copies.
    """

    _VIEWS = (
        *("alias", "as_strided", "detach", "expand", "permute", "promote_types", "select", "slice", "split"),
        *("split_with_sizes", "t", "unbind", "view", "view_as_real"),
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.written = 0
        self.read = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if name not in self._VIEWS:
            self.names.append(name)
            arguments = func._schema.arguments
            given = [*zip(arguments, args, strict=False), *((a, kwargs.get(a.name)) for a in arguments[len(args) :])]
            changed = [value for argument, value in given if argument.alias_info and argument.alias_info.is_write]
            made = [] if changed else result
            self.written += _bytes([changed, made])
            self.read += _bytes([args, kwargs]) - (_bytes(changed) if "copy_" in name or "out" in kwargs else 0)
        return result


def _bytes(tree: Any) -> int:
    return sum(leaf.numel() * leaf.itemsize for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def count_around_passes(model: nn.Module, opt: SharpnessAware, x: Tensor, y: Tensor) -> list[count_operations]:
    """Run one loop and return what was dispatched before, between and after its passes.

    Example:
        >>> from bisam import SAM
        >>> from bisam.testing import Net, batches, count_around_passes
        >>> model = Net()
        >>> opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
        >>> before, between, after = count_around_passes(model, opt, *batches(1)[0])
    """
    gaps, loop = [], opt.passes()
    while True:
        with count_operations() as seen:
            objective = next(loop, None)
        gaps.append(seen)
        if objective is None:
            return gaps
        objective(model(x), y).backward()


def bits(model: nn.Module) -> list[bytes]:
    """Return every parameter of a model as raw bytes, so that -0.0 differs from 0.0.

    Example:
        >>> from bisam.testing import Net, bits
        >>> model = Net()
        >>> before = bits(model)
        >>> before == bits(model)
        True
    """
    flat = (p.detach().cpu().contiguous().reshape(-1) for p in model.parameters())
    return [bytes(p.view(torch.uint8).tolist()) for p in flat]
