"""What a step costs beside its floor: as many plain forward-backward passes and one step of the base optimizer.

    python benchmarks/step.py [--device cuda] [--rounds 30] [--methods sam,gsam]

All contestants are timed in turn, round by round in one process, and the ratio is taken within each round, so that a
machine whose speed drifts tells the same. Steps of one method with different numbers of passes are told apart. What a
step must cost: at most 1.10 times its floor on a network whose passes take tens of milliseconds (the copies and norms
are a few reads of the weights: ``traffic.py`` counts them).
"""

import argparse
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from bisam import METHODS, SAM, SSAM, BiSAM, LowerBoundLoss, SharpnessAware, TailSAM
from bisam.combine import Blend, Reuse, Surrogate
from bisam.direction import Friendly, Smoothed
from bisam.functional import lower_bound_loss
from bisam.geometry import RandomSupport, ScaledBall
from bisam_lab.bench.result import quartiles
from bisam_lab.bench.timing import WARM_UP, in_turn, timed
from bisam_lab.models import ResNet

#: Every named method, and combinations: ``make(base, model=model)``.
CONTESTANTS: dict[str, Callable[..., SharpnessAware]] = {
    **METHODS,
    "tailsam": lambda base, model: TailSAM(base, model=model, total_steps=1000, tail=1.0),  # every step perturbs
    "bisam+asam": lambda base, model: BiSAM(base, model=model, geometry=ScaledBall()),
    "bisam+gsam": lambda base, model: BiSAM(base, model=model, combine=Surrogate(), third_pass=True),
    "bisam+vasso": lambda base, model: BiSAM(base, model=model, direction=Smoothed()),
    "esam+asam": lambda base, model: SAM(base, model=model, geometry=RandomSupport(inner=ScaledBall())),
    "ssam+wsam": lambda base, model: SSAM(base, model=model, combine=Blend(0.7)),
    "f-sam+looksam": lambda base, model: SAM(
        base, model=model, ascent=LowerBoundLoss(), direction=Friendly(), combine=Reuse(), third_pass=True
    ),
}

#: Takes one step and returns its number of passes.
Step = Callable[[], int]


def base(model: nn.Module) -> Optimizer:
    """The base optimizer, at a rate that leaves the problem as it is."""
    return torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)


def floors(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[Step]:
    """Plain steps of one, two and three passes."""
    loss, optimizer = nn.CrossEntropyLoss(), base(model)

    def step(passes: int) -> int:
        for _ in range(passes):
            optimizer.zero_grad()
            loss(model(x), y).backward()
        optimizer.step()
        return passes

    return [lambda passes=passes: step(passes) for passes in (1, 2, 3)]  # type: ignore[misc]


def ours(opt: SharpnessAware, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    """A method's step."""

    def step() -> int:
        passes = 0
        for objective in opt.passes():
            objective(model(x), y).backward()
            passes += 1
        opt.step()
        opt.zero_grad()
        return passes

    return step


def losses(device: torch.device) -> dict[str, Step]:
    """Cross-entropy (floor) and the lower bound, forward and backward, on 512 x 1000 logits."""
    logits = torch.randn(512, 1000, device=device, requires_grad=True)
    target = torch.randint(0, 1000, (512,), device=device)

    def step(loss: Callable[..., torch.Tensor], **kwargs: str) -> Step:
        def run() -> int:
            torch.autograd.backward(loss(logits, target, **kwargs))
            return 1

        return run

    return {
        "cross-entropy (floor)": step(nn.functional.cross_entropy),
        "lower bound, log": step(lower_bound_loss),
        "lower bound, tanh": step(lower_bound_loss, bound="tanh"),
    }


def compare(title: str, floor: list[Step], contestants: dict[str, Step], rounds: int, device: torch.device) -> None:
    """Time the contestants in turn and print, for each, the median and its ratio to the floor of as many passes."""
    found: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for number, order in enumerate(in_turn(list(contestants.items()), rounds + WARM_UP)):
        lowest = dict(timed(step, device) for step in floor)
        for name, run in order:
            passes, took = timed(run, device)
            if number >= WARM_UP:
                found[name, passes].append((took, took / lowest[passes]))
    print(f"\n{title} ({rounds} rounds; floors " + ", ".join(f"{1e3 * s:.2f}" for s in lowest.values()) + " ms)")
    for (name, passes), times in sorted(found.items(), key=lambda item: list(contestants).index(item[0][0])):
        low, middle, high = quartiles([ratio for _, ratio in times])
        print(
            f"  {name:22} {passes} passes {1e3 * statistics.median(took for took, _ in times):9.2f} ms"
            f"   x {middle:.2f}  [quartiles {low:.2f}, {high:.2f}], n = {len(times)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--methods", default=",".join(CONTESTANTS), help=f"among {', '.join(CONTESTANTS)}")
    args, _ = parser.parse_known_args()
    device, rounds = torch.device(args.device), args.rounds
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor() or 'CPU'}"
    print(f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    linears = [part for _ in range(200) for part in (nn.Linear(64, 64), nn.ReLU())]
    y = torch.randint(0, 10, (128,), device=device)
    for title, model, x in (
        ("ResNet-20, batch 128 x 3 x 32 x 32", ResNet(20, 3, 10), torch.randn(128, 3, 32, 32, device=device)),
        (
            "402 small tensors, batch 128",
            nn.Sequential(*linears, nn.Linear(64, 10)),
            torch.randn(128, 64, device=device),
        ),
    ):
        net = model.to(device)
        steps = {}
        for name in args.methods.split(","):
            if name == "samon" and not any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
                continue
            steps[name] = ours(CONTESTANTS[name](base(net), model=net), net, x, y)
        compare(title, floors(net, x, y), steps, rounds, device)
    contestants = losses(device)
    compare("loss, 512 x 1000 logits", [contestants["cross-entropy (floor)"]], contestants, rounds, device)


if __name__ == "__main__":
    main()
