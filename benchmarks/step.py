"""What a step costs beside its floor: its forward-backward passes and one step of the base optimizer.

    python benchmarks/bench.py --only step
    python benchmarks/step.py [--workloads digits,language] [--methods sam,gsam] [--device cuda] [--rounds 15]

The second form prints every method on the chosen workloads. LookSAM's steps differ, so five of them are timed together.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping

import torch
from contestants import CONTESTANTS, PEERS, Step, floor, ours
from target import Target, in_turn, threads
from torch import Tensor, nn
from workloads import WORKLOADS, Workload, named

from bisam import SAM
from bisam_lab.bench.result import quartiles

_REBINDS = (
    "a count: both move 8 vectors, but it gives w back by `p.data = old`, which moves none, and instead makes a "
    "product that stays in the cache"
)

#: Steps that are timed together: LookSAM perturbs one of five.
CYCLES = {"looksam": 5, "pytorch_optimizer LookSAM": 5}
#: Methods that remember or combine gradients, with what they may cost on the memory bound network.
WITH_MEMORY = ("gsam", "looksam", "friendlysam", "wsam", "esam")


def targets(rounds: int) -> Iterator[Target]:
    """Measure SAM and BiSAM on every workload, beside their floor and beside every other implementation."""
    with threads(1):
        for workload in WORKLOADS:
            yield from _on(workload, rounds)
        yield from _with_memory(rounds)
        yield _on_tensors_of_size_one(rounds)


def _on(workload: Workload, rounds: int) -> Iterator[Target]:
    found = measure(workload, ["sam", "bisam"], rounds)
    for name in ("sam", "bisam"):
        yield Target("step", f"{workload.name}: {name}", "two passes", workload.most, found[name], workload.why)
    peers = {name: found[name] for name in PEERS if name in found}
    fastest = min(peers, key=lambda name: statistics.median(peers[name]))
    ratios = tuple(mine / theirs for mine, theirs in zip(found["sam"], peers[fastest], strict=True))
    why = workload.why or (_REBINDS if fastest.startswith("loop") else "")
    yield Target("step", f"{workload.name}: sam beside {fastest}", "the fastest peer", 1.0, ratios, why)


def _with_memory(rounds: int) -> Iterator[Target]:
    words = next(named("language"))
    theirs = {ours: name for name, (ours, _) in PEERS.items() if name.startswith("pytorch")}
    found = measure(words, [*WITH_MEMORY, "asam"], rounds, [theirs[n] for n in (*WITH_MEMORY, "asam") if n in theirs])
    for name in WITH_MEMORY:
        yield Target("step", f"{words.name}: {name}", "its passes", 2.0, found[name])
    for name in (*WITH_MEMORY, "asam"):
        if name in theirs:
            peer = theirs[name]
            ratios = tuple(mine / other for mine, other in zip(found[name], found[peer], strict=True))
            yield Target("step", f"{words.name}: {name} beside {peer}", peer, 1.0, ratios)


def _on_tensors_of_size_one(rounds: int) -> Target:
    """What SAM's Python costs: between the passes there is nothing to compute."""
    params = [nn.Parameter(torch.zeros(1)) for _ in range(1000)]
    gradients = [torch.ones(1) for _ in params]
    plain = torch.optim.SGD(params, lr=1e-6, momentum=0.9)
    opt = SAM(torch.optim.SGD(params, lr=1e-6, momentum=0.9))

    def give() -> None:
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient

    def update() -> None:
        give()
        plain.step()

    def passes() -> None:
        for _ in opt.passes():
            give()

    found = in_turn({"base": update, "passes": passes}, "base", rounds)
    return Target("step", "1000 tensors of size 1: all of SAM but step()", "the base's step()", 2.0, found["passes"])


def measure(
    workload: Workload, methods: list[str], rounds: int, peers: list[str] | None = None, device: str = "cpu"
) -> dict[str, tuple[float, ...]]:
    """Return, for each method and peer, the ratios of its step to its floor; without ``peers`` SAM's and BiSAM's."""
    problem = workload.build(device)
    chosen = [n for n, (method, _) in PEERS.items() if method in ("sam", "bisam")] if peers is None else peers
    runs = {name: ours(name, *problem) for name in methods}
    runs |= {name: PEERS[name][1](*problem) for name in chosen}
    cycles = {name: _cycle(run, CYCLES.get(name, 1)) for name, run in runs.items()}
    passes = {name: tuple(_passes(run, CYCLES.get(name, 1))) for name, run in runs.items()}
    floors = {kind: _floors(kind, *problem) for kind in set(passes.values())}
    found: dict[str, tuple[float, ...]] = {}
    timed: Mapping[str, Callable[[], object]] = cycles | {f"floor {kind}": run for kind, run in floors.items()}
    first = next(name for name in timed if name.startswith("floor"))
    ratios = in_turn(timed, first, rounds)
    for name in cycles:
        kind = f"floor {passes[name]}"
        lowest = ratios[kind] if kind != first else (1.0,) * rounds
        found[name] = tuple(mine / low for mine, low in zip(ratios[name], lowest, strict=True))
    return found


def _cycle(run: Step, steps: int) -> Callable[[], object]:
    return lambda: [run() for _ in range(steps)]


def _passes(run: Step, steps: int) -> list[int]:
    return sorted(run() for _ in range(steps))


def _floors(kind: tuple[int, ...], model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    steps = {number: floor(number, model, x, y) for number in set(kind)}
    return lambda: [steps[number]() for number in kind]


def main() -> None:
    """Print every chosen method on every chosen workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workloads", default="digits,402,1002,language,adapters,ResNet,ViT")
    parser.add_argument("--methods", default=",".join(CONTESTANTS), help=f"among {', '.join(CONTESTANTS)}")
    args, _ = parser.parse_known_args()
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {where}, one thread; median ratio to the floor, with quartiles")
    with threads(1):
        for workload in named(args.workloads):
            print(f"\n{workload.name}")
            for name, ratios in measure(workload, args.methods.split(","), args.rounds, list(PEERS)).items():
                low, middle, high = quartiles(ratios)
                print(f"  {name:32} {middle:6.2f}  [{low:.2f}, {high:.2f}]", flush=True)


if __name__ == "__main__":
    main()
