"""Networks and batches on which steps are timed: compute bound, dispatch bound, memory bound."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bisam_lab.models import ResNet, build_model
from bisam_lab.recipe import load

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """A network with a batch.

    Attributes:
        name: of its row in the table.
        most: what a step may cost beside two plain passes and a step of the base optimizer.
        make: returns the network, its inputs and its targets.
        why: where the cost of a step comes from, if it is above the bound.
    """

    name: str
    most: float
    make: Callable[[], tuple[nn.Module, Tensor, Tensor]]
    why: str = ""

    def build(self, device: str = "cpu") -> tuple[nn.Module, Tensor, Tensor]:
        """Return the network, inputs and targets: the same in every call."""
        torch.manual_seed(0)
        model, x, y = self.make()
        return model.to(device), x.to(device), y.to(device)


def base(model: nn.Module) -> Optimizer:
    """The base optimizer, at a rate that leaves the problem as it is."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)


def _digits() -> tuple[nn.Module, Tensor, Tensor]:
    return build_model(load("digits").model, (1, 8, 8), 10), torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,))


def _linears(number: int) -> tuple[nn.Module, Tensor, Tensor]:
    layers = [part for _ in range(number) for part in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10)), torch.randn(128, 64), torch.randint(0, 10, (128,))


def _words() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(
        nn.Embedding(16384, 256), nn.LayerNorm(256), nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256, bias=False),
        nn.Linear(256, 16384),
    )  # fmt: skip
    return model, torch.randint(0, 16384, (16,)), torch.randint(0, 16384, (16,))


class _Adapter(nn.Module):
    """A frozen layer with a trained path of low rank beside it."""

    def __init__(self, width: int, rank: int = 8) -> None:
        super().__init__()
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.frozen(x) + self.up(self.down(x)))


def _adapters() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(*[_Adapter(512) for _ in range(24)], nn.Linear(512, 10))
    return model, torch.randn(64, 512), torch.randint(0, 10, (64,))


def _resnet() -> tuple[nn.Module, Tensor, Tensor]:
    return ResNet(20, 3, 10), torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))


class _ViT(nn.Module):
    """Patches of 4 x 4 pixels, 6 encoder layers of width 128, the mean token's class."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 128, 4, stride=4)
        self.place = nn.Parameter(torch.zeros(1, 64, 128))
        self.layers = nn.Sequential(*[nn.TransformerEncoderLayer(128, 4, 256, 0.0, batch_first=True) for _ in range(6)])
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT + self.place
        out: Tensor = self.head(self.layers(tokens).mean(1))
        return out


def _vit() -> tuple[nn.Module, Tensor, Tensor]:
    return _ViT(), torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))


_CALLS = (
    "a profile: SAM's own time is .42 ms, a third of it in 9 kernels over lists of tensors; the rest is Python that "
    "looks after buffers, gradients that were there, interrupts and changed modules, which the others leave out"
)
_LISTS = (
    "a profile: 9.7 ms of a step's own with 1002 tensors, 7.3 of them in five operations on lists (two rows, one sum, "
    "views of a row, one copy), 1 to 1.5 us a tensor each"
)
_FROZEN = "a profile: .72 ms of its own, of which .1 looks whether frozen parameters have moved, and .3 are kernels"

#: The seven workloads, those that show the step's own cost first.
WORKLOADS = (
    Workload("digits net, 23 tensors", 1.05, _digits, _CALLS),
    Workload("402 small tensors", 1.10, lambda: _linears(200), _LISTS),
    Workload("1002 small tensors", 1.10, lambda: _linears(500), _LISTS),
    Workload("language model, 9 M weights in 9 tensors", 1.40, _words),
    Workload("frozen net with adapters", 1.03, _adapters, _FROZEN),
    Workload("ResNet-20, 32 x 3 x 32 x 32", 1.03, _resnet),
    Workload("small ViT, 16 x 3 x 32 x 32", 1.03, _vit),
)


def named(names: str) -> Iterator[Workload]:
    """Yield the workloads whose names hold one of the comma-separated words."""
    words = names.split(",")
    yield from (workload for workload in WORKLOADS if any(word in workload.name for word in words))
