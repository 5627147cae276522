"""One job of a grid, in a process of its own: ``python -m bisam_lab.bench.grid.job JSON``. It prints a row a method."""

import gc
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bisam.cadence import Every

from ...registry.methods import Method
from ...run.environment import environment
from ..memory import metered
from ..result import MemoryUse, quartiles
from ..timing import timed
from .networks import NETWORKS, Network
from .paper import Plan, copies, plan

__all__ = ["run"]

Step = Callable[[Tensor, Tensor], None]


def run(network: str, training: str, methods: Sequence[str], rounds: int, limit: int) -> None:
    """Measure each method beside the plain optimizer; print its row as it is done."""
    known = NETWORKS[network]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = plan(known, training, known.batch, known.tokens)
    usual = plan(known, training, *known.usual)
    fits = {method: _needed(here, _declared(method)) <= limit for method in methods}
    bench = _Bench(known, training, device) if any(fits.values()) else None
    for method in methods:
        row = _on_paper(known, _declared(method), here, usual)
        if bench is not None and fits[method]:
            row |= bench.measure(method, rounds)
            row["said"] = f"time x {quartiles(row['ratios'])[1]:.2f}, memory x {row['memory']:.2f}"
        else:
            words = f"{here.words(_declared(method))}, and a second network {here.weights / 2**30:.2f}"
            row["refused"] = row["said"] = f"does not fit in {limit / 2**30:.2f} GiB, in GiB: {words}"
        key = f"{network} {training} {method}"
        print(
            json.dumps(
                {"key": key, "network": network, "training": training, "method": method, **row}
                | {"said": f"{key}: {row['said']}", "machine": environment(device)}
            ),
            flush=True,
        )


def _needed(here: Plan, number: int) -> int:
    """Return the bytes of a measurement: the plain optimizer's network lies beside the method's."""
    return here.weights + here.of(number)


def _on_paper(known: Network, number: int, here: Plan, usual: Plan) -> dict[str, Any]:
    return {
        "batch": known.batch,
        "tokens": known.tokens if known.timm is None else 0,
        "weights": here.weights,
        "trained": here.trained,
        "copies": number,
        "paper": {"plain": here.peak, "method": here.of(number)},
        "usual": {"batch": known.usual[0], "tokens": known.usual[1], "plain": usual.peak, "method": usual.of(number)},
    }


def _declared(method: str) -> int:
    """Return the copies that the method's choices declare."""
    model = nn.Linear(2, 2)
    return copies(_wrapped(method, torch.optim.AdamW(model.parameters()), model))


class _Bench:
    """Measures methods beside one plain optimizer.

    Args:
        known: the network.
        training: full or lora.
        device: where.
    """

    def __init__(self, known: Network, training: str, device: torch.device) -> None:
        self.known, self.training, self.device = known, training, device
        with device:
            self.x, self.y = known.inputs(known.batch, known.tokens)
        self.plain, self.floor, _ = self._ready(None)

    def measure(self, method: str, rounds: int) -> dict[str, Any]:
        """Return peak memory and the seconds of a mean step, each beside those of the plain optimizer."""
        step, use, cycle = self._ready(method)
        seconds: dict[str, list[float]] = {"plain": [], "method": []}
        for _ in range(rounds):
            seconds["plain"].append(self._timed(self.plain, 1))
            seconds["method"].append(self._timed(step, cycle))
        return {
            "seconds": seconds,
            "ratios": [b / a for a, b in zip(seconds["plain"], seconds["method"], strict=True)],
            "peak": {"plain": self.floor.peak, "method": use.peak},
            "memory": use.peak / self.floor.peak,
            "kept": use.kept - self.floor.kept,
        }

    def _ready(self, method: str | None) -> tuple[Step, MemoryUse, int]:
        """Return what takes a step, the memory of the first step of its second cycle, and the steps of a cycle."""
        with metered(self.device) as meter:
            torch.manual_seed(0)
            with self.device:
                model = self.known.build(self.training)
            step, cycle = _step(model, method)
            for _ in range(cycle):
                step(self.x, self.y)
            gc.collect()
            meter.reset()
            step(self.x, self.y)
            peak = meter.peak
            gc.collect()
            return step, MemoryUse(peak, meter.live), cycle

    def _timed(self, step: Step, steps: int) -> float:
        """Return the seconds of a mean step."""

        def run() -> None:
            for _ in range(steps):
                step(self.x, self.y)

        return timed(run, self.device)[1] / steps


def _step(model: nn.Module, method: str | None) -> tuple[Step, int]:
    """Return what takes a step, and after how many steps every kind of step has been taken."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    if method is None:

        def plain(x: Tensor, y: Tensor) -> None:
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return plain, 1
    opt = _wrapped(method, optimizer, model)

    def sharp(x: Tensor, y: Tensor) -> None:
        for objective in opt.passes():
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()

    cadence = opt.estimator.cadence
    return sharp, cadence.k if isinstance(cadence, Every) else 1


def _wrapped(method: str, base: torch.optim.Optimizer, model: nn.Module) -> Any:
    known = Method(method, {})
    return known.build(
        base, model=model, rho=known.radius(0.05, {}), descent=nn.CrossEntropyLoss(), steps=100, epochs=1
    )


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
