"""What a step costs beside its floor: two plain forward-backward pairs and one step of the base optimizer.

    python benchmarks/step.py [--device cuda] [--rounds 30]

All contestants are timed in turn, round by round in one process, and the ratio is taken within each round, so that a
machine whose speed drifts tells the same. What a step must cost: at most 1.10 times the floor on a network whose
passes take tens of milliseconds (the copies and norms are a few reads of the weights).
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from bisam import ASAM, SAM, BiSAM
from bisam.functional import lower_bound_loss
from bisam_lab.models import ResNet


def steps(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], None]]:
    """The floor, plain SGD, and each method, all on the same weights."""
    loss = nn.CrossEntropyLoss()

    def base() -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def plain(optimizer: torch.optim.Optimizer, passes: int) -> Callable[[], None]:
        def step() -> None:
            for _ in range(passes):
                optimizer.zero_grad()
                loss(model(x), y).backward()
            optimizer.step()

        return step

    def ours(opt: SAM | ASAM | BiSAM) -> Callable[[], None]:
        def step() -> None:
            for objective in opt.passes():
                objective(model(x), y).backward()
            opt.step()
            opt.zero_grad()

        return step

    return {
        "two passes (floor)": plain(base(), 2),
        "sgd": plain(base(), 1),
        "sam": ours(SAM(base(), model=model)),
        "asam": ours(ASAM(base(), model=model)),
        "bisam": ours(BiSAM(base(), model=model)),
    }


def losses(device: str) -> dict[str, Callable[[], None]]:
    """Cross-entropy (floor) and the lower bound, forward and backward, on 512 x 1000 logits."""
    logits = torch.randn(512, 1000, device=device, requires_grad=True)
    target = torch.randint(0, 1000, (512,), device=device)
    return {
        "cross-entropy (floor)": lambda: torch.autograd.backward(nn.functional.cross_entropy(logits, target)),
        "lower bound, log": lambda: torch.autograd.backward(lower_bound_loss(logits, target)),
        "lower bound, tanh": lambda: torch.autograd.backward(lower_bound_loss(logits, target, bound="tanh")),
    }


def compare(title: str, contestants: dict[str, Callable[[], None]], rounds: int, device: str) -> None:
    """Time the contestants in turn and print each median and its ratio to the first one."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            if turn >= 3:
                seconds[name].append(time.perf_counter() - start)
    floor = next(iter(seconds.values()))
    print(f"\n{title} (n = {rounds} rounds)")
    for name, times in seconds.items():
        ratios = sorted(t / f for t, f in zip(times, floor, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        print(
            f"  {name:22} {1e3 * statistics.median(times):9.2f} ms"
            f"   x {statistics.median(ratios):.2f}  [quartiles {low:.2f}, {high:.2f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{platform.processor() or 'CPU'}"
    print(f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    net = ResNet(20, 16, 3, 10).to(args.device)
    x, y = torch.randn(128, 3, 32, 32, device=args.device), torch.randint(0, 10, (128,), device=args.device)
    compare("ResNet-20, batch 128 x 3 x 32 x 32", steps(net, x, y), args.rounds, args.device)
    deep = nn.Sequential(*[m for _ in range(200) for m in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 10)).to(
        args.device
    )
    compare(
        "402 small tensors, batch 128",
        steps(deep, torch.randn(128, 64, device=args.device), y),
        args.rounds,
        args.device,
    )
    compare("loss, 512 x 1000 logits", losses(args.device), args.rounds, args.device)


if __name__ == "__main__":
    main()
