"""Is a stack of networks the same as its networks one by one, and faster, on this machine?"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.examples import Examples, InMemory
from ..recipe import Recipe
from ..run.asking import Forward
from ..run.fabric import build_fabric
from ..run.setup import load_examples_and_model
from .network import StackedNetwork
from .plan import LARGEST_PASS

__all__ = ["Trial", "try_stack"]

#: Measurements of a pass, of which the fastest counts: what else runs on the machine only slows it.
ROUNDS = 5
#: How far outputs and buffers may be apart, and gradients, as a share of their norm. bfloat16 rounds by 0.004.
ROUNDING, KINKS = 0.01, 0.03


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        refused: why the runs cannot be stacked; None where they can.
        alone: seconds of a pass, forward and backward, of all the networks one by one.
        stacked: seconds of a pass of all of them together.
        memory: whether a smaller stack may fit.
    """

    refused: str | None
    alone: float = 0.0
    stacked: float = 0.0
    memory: bool = False

    @property
    def ratio(self) -> float:
        """Time of a stacked pass, as a share of the time one by one."""
        return self.stacked / self.alone


def try_stack(recipe: Recipe, data_dir: Path | None, size: int, slowest: float = LARGEST_PASS) -> Trial:
    """Pass one batch through ``size`` networks of the recipe, one by one and stacked, and compare and time both.

    Outputs, gradients and buffers must be the same to rounding. Nothing of it is kept, so the trial has no part in what
    comes out of a run.

    Args:
        recipe: what the runs train, without variants.
        data_dir: folder of the data sets.
        size: networks in the stack.
        slowest: on a CPU, seconds of a pass alone from which a network is refused.

    Raises:
        RecipeError: data are missing, or the network cannot be built.
    """
    if recipe.engine.precision.endswith("-mixed"):
        return Trial(f"autocast (engine.precision={recipe.engine.precision}) does not reach convolutions under vmap")
    if recipe.engine.processes > 1:
        return Trial(f"engine.devices={recipe.engine.devices} x engine.nodes={recipe.engine.nodes} is not one process")
    fabric = build_fabric(recipe.engine)
    splits, model = load_examples_and_model(recipe, data_dir, seed=0)
    if not isinstance(splits.train, InMemory):
        return Trial("its pictures are decoded from files while it trains (data.loading)")
    try:
        source = splits.train.to(fabric.device)
        batches = [next(source.shuffled(recipe.train.batch_size, seed, epoch=1)) for seed in range(size)]
        nets = [fabric.setup_module(network) for network in _different(model, size)]
        return _Rehearsal(nets, fabric, batches, slowest).trial
    except torch.OutOfMemoryError:
        return Trial(f"{size} networks at once need more memory than there is", memory=True)


def _different(model: nn.Module, size: int) -> list[nn.Module]:
    """Return copies of a network with other weights each."""
    networks = [copy.deepcopy(model) for _ in range(size)]
    for number, network in enumerate(networks):
        rng = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for param in network.parameters():
                param.mul_(1 + 0.1 * torch.rand(param.shape, generator=rng).to(param.device, param.dtype))
    return networks


class _Rehearsal:
    """One pass of several networks, one by one and stacked."""

    def __init__(self, nets: Sequence[Any], fabric: Any, batches: Sequence[Examples], slowest: float) -> None:
        self.nets, self.fabric, self.batches, self.slowest = nets, fabric, batches, slowest
        self.requests = [Forward(net.train(), batch.x, fabric) for net, batch in zip(nets, batches, strict=True)]
        self.network: StackedNetwork | None = None

    @property
    def trial(self) -> Trial:
        """What came out."""
        before = _global_numbers()
        seconds = self._fastest(lambda: self._alone(1), 3)
        if _global_numbers() != before:
            return Trial("its network draws random numbers in training (dropout), which differ from run to run")
        if self.fabric.device.type == "cpu" and seconds > self.slowest:
            return Trial(f"a pass takes {seconds:.2f} s: its operations are large enough alone")
        buffers = [{name: buffer.clone() for name, buffer in net.named_buffers()} for net in self.nets]
        self._alone()
        expected = self._left()
        for net, kept in zip(self.nets, buffers, strict=True):
            for name, buffer in net.named_buffers():
                buffer.copy_(kept[name])
        self.network = StackedNetwork(self.requests[0].model)
        if self.network.unknown_statistics:
            return Trial("its norms keep running statistics of a kind that is not stacked (momentum=None, say)")
        try:
            self._stacked()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 a network of anybody's may do anything
            return Trial(f"torch.func.vmap cannot compute its network: {' '.join(str(error).split())[:200]}")
        if not _same(self._left(), expected):
            return Trial("its network computes something else under torch.func.vmap")
        return self._timed()

    def _timed(self) -> Trial:
        alone, stacked = [], []
        for _ in range(ROUNDS):
            alone.append(self._fastest(self._alone, 1))
            stacked.append(self._fastest(self._stacked, 1))
        return Trial(None, min(alone), min(stacked))

    def _alone(self, first: int | None = None) -> None:
        self._clear()
        self.outputs = [request.answer() for request in self.requests[:first]]
        for loss in self._losses():
            loss.backward()

    def _stacked(self) -> None:
        assert self.network is not None
        self._clear()
        self.outputs = self.network(self.requests)
        torch.autograd.backward(self._losses())

    def _losses(self) -> list[Tensor]:
        return [F.cross_entropy(o, batch.y) for o, batch in zip(self.outputs, self.batches, strict=False)]

    def _clear(self) -> None:
        for net in self.nets:
            net.zero_grad()

    def _left(self) -> list[list[Tensor]]:
        """Return what a pass has left: outputs, gradients and buffers."""
        grads = [p.grad.clone() for net in self.nets for p in net.parameters() if p.grad is not None]
        buffers = [b.clone() for net in self.nets for b in net.buffers() if b.is_floating_point()]
        return [[output.detach().clone() for output in self.outputs], grads, buffers]

    def _fastest(self, run: Callable[[], None], times: int) -> float:
        found = []
        for _ in range(times):
            self._wait()
            began = time.perf_counter()
            run()
            self._wait()
            found.append(time.perf_counter() - began)
        return min(found)

    def _wait(self) -> None:
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.fabric.device)


def _same(found: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Tensor]]) -> bool:
    """Whether outputs, gradients and buffers differ by no more than rounding.

    Rounding may turn a ReLU at zero on or off, so that single gradients differ by more.
    """
    return all(
        len(kind) == len(other) and _distance(kind, other) <= share
        for kind, other, share in zip(found, expected, (ROUNDING, KINKS, ROUNDING), strict=True)
    )


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the norm of the difference as a share of the norm."""
    if not expected:
        return 0.0
    found, expected = ([tensor.double() for tensor in tensors] for tensors in (found, expected))
    difference = torch.stack(torch._foreach_norm(torch._foreach_sub(found, expected))).norm()
    return float(difference / torch.stack(torch._foreach_norm(expected)).norm().clamp(min=1e-30))


def _global_numbers() -> list[Any]:
    """Return the states of the generators that a network may draw from, to be compared."""
    cuda = [torch.cuda.get_rng_state().tolist()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()), *cuda]
