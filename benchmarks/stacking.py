"""Runs trained together beside the same runs one by one.

    python benchmarks/bench.py --only stacking          steps of small networks, as a table of targets
    python benchmarks/stacking.py --demo [--pairs 3]    wall time of the demo, stacked and not, in pairs
    python benchmarks/stacking.py --row --data-dir data [--epochs 200] [--device cuda]
                                                        the ResNet-56 row of the paper's Table 1, and its roofline

The row takes a GPU and CIFAR-10 (``bisam data fetch cifar10 --data-dir data``). It times steps first, says how long
200 epochs of 3 methods x 6 seeds will take beside the least time that the GPU's arithmetic and memory allow, and then
trains them by ``bisam compare``, which continues where it was stopped.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from target import Target, in_turn, threads
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bisam_lab.data.examples import Examples
from bisam_lab.models import ResNet
from bisam_lab.recipe import Recipe, load
from bisam_lab.registry.methods import Method
from bisam_lab.run.asking import Asking, Clock, alone
from bisam_lab.run.fabric import build_fabric
from bisam_lab.run.optimizer import build_optimizer
from bisam_lab.run.steps import Steps
from bisam_lab.stack.together import together

RUNS, STEPS = 10, 16
#: What an H100 SXM can do, in operations and bytes a second: float32 by TF32 tensor cores, bfloat16, and its memory.
H100 = {"32-true": 494e12, "bf16-true": 989e12, "memory": 3.35e12}


class Perceptron(nn.Sequential):
    """Two hidden layers of 32, on pictures of 8 x 8."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


class Transformer(nn.Module):
    """Two blocks of width 16 over the eight rows of a picture, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 1, 8, 8) to logits (B, 10)."""
        logits: Tensor = self.head(self.blocks(self.embed(x[:, 0])).mean(1))
        return logits


def targets(rounds: int) -> Iterator[Target]:
    """Time SAM's steps of ten runs on one core, as each of a study's processes takes them."""
    networks: list[tuple[str, Callable[[], nn.Module], float, str]] = [
        (
            "the digits' ResNet-8",
            lambda: ResNet(8, 1, 10, width=8),
            0.6,
            "convolutions of 8 channels, and each run's own optimizer",
        ),
        ("a perceptron 64-32-32-10", Perceptron, 0.35, "what is left is each run's own optimizer, in Python"),
        ("a transformer of two blocks", Transformer, 0.35, "attention copies its inputs under vmap"),
    ]
    with threads(1):
        for name, build, at_most, why in networks:
            recipe = load("digits", [])
            ways = _ways(recipe, "sam", build, RUNS, lambda: torch.randn(64, 1, 8, 8), 10, torch.device("cpu"))
            found = in_turn(ways, "one by one", rounds)
            yield Target(
                "stacking", f"SAM, ten runs of {name} in a stack", "one by one", at_most, found["stacked"], why
            )


def _ways(
    recipe: Recipe,
    method: str,
    build: Callable[[], nn.Module],
    runs: int,
    draw: Callable[[], Tensor],
    classes: int,
    device: torch.device,
) -> dict[str, Callable[[], object]]:
    """Return two functions that take the same steps of several runs, one by one and stacked."""
    fabric, kind = build_fabric(recipe.engine), Method(method, {})
    taken = []
    for seed in range(runs):
        torch.manual_seed(seed)
        model = build().to(device)
        opt = build_optimizer(method, recipe, model, 1000, classes)
        steps = Steps(fabric, model, opt, kind, recipe.train, 1000)
        x = draw().to(device)
        steps.begin()
        taken.append((steps, Examples(x, torch.randint(0, classes, (len(x),)).to(device))))

    def work(steps: Steps, batch: Examples, clock: Clock) -> Asking[None]:
        for _ in range(STEPS):
            yield from steps.step(batch)

    def one_by_one() -> None:
        for steps, batch in taken:
            alone(work(steps, batch, time.perf_counter))

    return {
        "one by one": one_by_one,
        "stacked": lambda: together([partial(work, steps, batch) for steps, batch in taken]),
    }


# -- the demo ---------------------------------------------------------------------------------------------------------


def demo(pairs: int, overrides: list[str]) -> None:
    """Print the wall time of ``bisam compare digits`` with and without stacks, in turn."""
    bisam = str(Path(sys.executable).parent / "bisam")
    ratios = []
    for number in range(pairs):
        took = {}
        for stack in (("on", "off"), ("off", "on"))[number % 2]:
            with tempfile.TemporaryDirectory() as folder:
                command = [bisam, "compare", "digits", *overrides, "--stack", stack, "--out", f"{folder}/s"]
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                took[stack] = time.perf_counter() - began
        ratios.append(took["on"] / took["off"])
        print(f"stacked {took['on']:.1f} s, one by one {took['off']:.1f} s: {ratios[-1]:.2f}", flush=True)
    print(f"median {median(ratios):.2f} of {pairs} pairs; the target is 0.60")


# -- the row of Table 1 -----------------------------------------------------------------------------------------------


def row(device: str, precision: str, epochs: int, data_dir: Path | None, out: Path) -> None:
    """Time steps of the ResNet-56 row, print its roofline, and train it where there are data."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    changes = [f"engine.accelerator={device}", f"engine.precision={precision}", f"train.epochs={epochs}"]
    recipe = load("table1-cifar10", changes)
    runs, steps = 3 * recipe.seeds, epochs * -(-45000 // recipe.train.batch_size)
    flops, moved = cost_of_a_pass(ResNet(56, 3, 10), recipe.train.batch_size, 2 if precision == "bf16-true" else 4)
    least = {
        "arithmetic": 2 * runs * steps * flops / H100[precision],
        "memory": 2 * runs * steps * moved / H100["memory"],
    }
    print(f"{runs} runs x {steps} steps x 2 passes of {flops / 1e9:.1f} GFLOP and {moved / 1e9:.2f} GB of activations")
    for name, seconds in least.items():
        print(f"  an H100's {name} takes {seconds / 60:.1f} minutes at least (no fusion, {precision})")
    where = torch.device(device)
    ways = _ways(
        recipe,
        "sam",
        lambda: ResNet(56, 3, 10).to(torch.bfloat16 if precision == "bf16-true" else torch.float32),
        runs,
        lambda: torch.randn(recipe.train.batch_size, 3, 32, 32),
        10,
        where,
    )
    for name, run in ways.items():
        run()
        seconds = min(_seconds(run) for _ in range(3)) / STEPS
        print(f"  {name}: {seconds:.3f} s a step of all runs, {seconds * steps / 60:.1f} minutes for {epochs} epochs")
    if data_dir is not None:
        bisam = str(Path(sys.executable).parent / "bisam")
        options = ["--variants", "resnet-56", "--stack", "on", "--data-dir", str(data_dir), "--out", str(out)]
        began = time.perf_counter()
        subprocess.run([bisam, "compare", "table1-cifar10", *changes, *options], check=True)
        print(f"trained in {(time.perf_counter() - began) / 60:.1f} minutes; the target is 30 on an H100")


def cost_of_a_pass(model: nn.Module, batch: int, width: int) -> tuple[float, float]:
    """Return the operations of a forward and backward pass, and the bytes of activations that it reads and writes.

    Each layer's output counts eight times: convolution, BatchNorm (twice) and ReLU read and write it on the way there,
    and about as often on the way back.
    """
    counter, numbers = FlopCounterMode(display=False), 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal numbers
        numbers += output.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    with counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() * batch / 2, 8 * numbers * width * batch / 2


def _seconds(run: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--demo", action="store_true")
    what.add_argument("--row", action="store_true")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the demo's recipe")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-true"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("studies/table1-resnet-56"))
    args = parser.parse_args()
    if args.demo:
        demo(args.pairs, args.set)
    else:
        row(args.device, args.precision, args.epochs, args.data_dir, args.out)


if __name__ == "__main__":
    main()
