"""What BiSAM's objective costs beside cross-entropy, and a chunked head beside the plain path: time and peak memory.

    python benchmarks/bench.py --only objective          the targets, in the table of all targets
    python benchmarks/objective.py [--device cuda]       the same, alone, on a device

Times are of one forward and backward pass on the same logits, in turn. Memory is counted: the bytes of live tensors
beside the logits (on CUDA, its allocator's). The logits are standard normal and the labels uniform.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import torch
from target import Target, in_turn, threads
from torch import Tensor, nn

from bisam import ChunkedHeadLoss, LowerBoundLoss
from bisam.bounds import BOUNDS
from bisam_lab.bench.memory import metered

SHAPES = ((128, 10), (512, 1000), (4096, 50257))
DTYPES = (torch.float32, torch.bfloat16)
#: Tokens, width and vocabulary of the head. A wider head makes the products, which both paths have, weigh more.
HEAD = (8192, 256, 50257)

_CALLS = (
    "calls, not arithmetic: the forward and backward pass are about 25 small kernels and a Function written in Python, "
    "1 to 2 us each, where cross-entropy has 4 kernels of its own in C++"
)
_TWO = (
    "arithmetic: two transcendental functions an element (a sigmoid and a power of 2) and their slopes, in 11 sweeps "
    "over blocks in the cache, where cross-entropy has two fused kernels"
)
_SWEEPS = "sweeps: 9 to 11 over blocks in the cache, each a kernel of torch, where cross-entropy has two fused kernels"
_LAUNCHES = "sweeps: each is a kernel over all logits on a GPU; torch.compile of the loss makes one kernel of them"


def targets(rounds: int, device: str = "cpu") -> Iterator[Target]:
    """Yield the targets of the objective and of the chunked head."""
    where = torch.device(device)
    for number in (1, 2) if where.type == "cpu" else (1,):
        for shape in SHAPES:
            for dtype in DTYPES:
                with threads(number):
                    yield from _times(shape, dtype, number, rounds, where)
    for shape in SHAPES:
        for dtype in DTYPES:
            yield from _memory(shape, dtype, where)
    yield from _head(rounds, where)


def _bounds() -> dict[str, nn.Module]:
    return {"F.cross_entropy": nn.CrossEntropyLoss()} | {name: LowerBoundLoss(name) for name in BOUNDS}


def _times(
    shape: tuple[int, int], dtype: torch.dtype, number: int, rounds: int, device: torch.device
) -> Iterator[Target]:
    logits, target = _problem(shape, dtype, device)
    runs = {name: _step(loss, logits, target) for name, loss in _bounds().items()}
    rounds = rounds if shape[1] < 50000 else max(3, rounds // 3)
    most = 2.0 if shape[0] == 128 else 1.3
    for name, ratios in in_turn(runs, "F.cross_entropy", rounds).items():
        yield Target(
            "objective",
            f"time of {name} {shape}, {str(dtype)[6:]}, {number} thread{'s'[: number - 1]}",
            "F.cross_entropy",
            most,
            ratios,
            _why(name, shape, device),
        )


def _why(name: str, shape: tuple[int, int], device: torch.device) -> str:
    if shape[0] == 128:
        return _CALLS
    if device.type != "cpu":
        return _LAUNCHES
    return _TWO if "tanh" in name else _SWEEPS


def _memory(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Iterator[Target]:
    peaks = {}
    for name, loss in _bounds().items():
        logits, target = _problem(shape, dtype, device)
        peaks[name] = _peak(_step(loss, logits, target), device)
        del logits, target
    floor = peaks.pop("F.cross_entropy")
    for name, peak in peaks.items():
        yield Target(
            "objective",
            f"peak memory of {name} {shape}, {str(dtype)[6:]}",
            "F.cross_entropy",
            1.3,
            (peak / floor,),
            "its scratch tensors are of a block of 2^19 elements in float32, and all the logits are fewer here"
            if shape[1] < 50000
            else "",
        )


def _head(rounds: int, device: torch.device) -> Iterator[Target]:
    tokens, width, classes = HEAD
    head = nn.Linear(width, classes, bias=False, device=device)
    features = torch.randn(tokens, width, device=device, requires_grad=True)
    target = torch.randint(classes, (tokens,), device=device)
    named: dict[str, nn.CrossEntropyLoss | LowerBoundLoss] = {
        "cross-entropy": nn.CrossEntropyLoss(),
        "log": LowerBoundLoss(),
    }
    for name, loss in named.items():
        runs = {"chunked": _head_step(ChunkedHeadLoss(head, loss), head, features, target)}
        runs["plain"] = _head_step(lambda f, y, loss=loss: loss(head(f), y), head, features, target)  # type: ignore[misc]
        shape = f"{tokens} tokens x {width} x {classes}"
        yield Target(
            "objective",
            f"peak memory of a chunked head, {name}, {shape}",
            "the plain path",
            0.25,
            (_peak(runs["chunked"], device) / _peak(runs["plain"], device),),
        )
        ratios = in_turn(runs, "plain", max(3, rounds // 5))["chunked"]
        yield Target("objective", f"time of a chunked head, {name}, {shape}", "the plain path", 1.3, ratios)


def _problem(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_()
    return logits, torch.randint(shape[1], shape[:1], generator=generator, device=device)


def _step(loss: nn.Module, logits: Tensor, target: Tensor) -> Callable[[], None]:
    def run() -> None:
        loss(logits, target).backward()
        logits.grad = None

    return run


def _head_step(
    loss: Callable[[Tensor, Tensor], Tensor], head: nn.Linear, features: Tensor, target: Tensor
) -> Callable[[], None]:
    def run() -> None:
        loss(features, target).backward()
        features.grad = head.weight.grad = None

    return run


def _peak(run: Callable[[], object], device: torch.device) -> int:
    run()
    with metered(device) as meter:
        meter.reset()
        run()
        return meter.peak


def main() -> int:
    """Print the targets of one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print(torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU", f"torch {torch.__version__}")
    for target in targets(args.rounds, args.device):
        low, middle, high = target.quartiles
        print(f"{target.name:72} {target.at_most:5.2f} {middle:7.2f} [{low:.2f}, {high:.2f}]", flush=True)
        if not target.holds:
            print(f"    {target.why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
