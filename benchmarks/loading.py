"""Whether data wait for the network or the network for data: a batch of CIFAR beside a step of training on it.

    python benchmarks/loading.py [--device cuda] [--rounds 30] [--model 20] [--workers 2] [--pictures 512]

A batch of 128 images of 32 x 32 is drawn from memory, normalised and augmented (crop, flip, cutout), and a ResNet takes
a plain step on it. Both are timed in turn, round by round in one process, and the ratio is taken within each round.
Then pictures are written as JPEGs of 500 x 375 and streamed at 224 pixels with random parts, by so many workers.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from bisam_lab.data import Examples, InMemory
from bisam_lab.data.augment import AUGMENT, flip
from bisam_lab.data.normalise import Normalise, moments
from bisam_lab.data.stream import Streamed
from bisam_lab.datasets.pictures import files
from bisam_lab.models import ResNet


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, all of it done."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_memory(augment: str, device: torch.device) -> Iterator[Examples]:
    """Endless batches of random bytes in the shape of CIFAR."""
    x = torch.randint(0, 256, (10_000, 3, 32, 32), dtype=torch.uint8)
    examples = Examples(x, torch.randint(0, 10, (len(x),)))
    source = InMemory(examples, Normalise(*moments(x)), AUGMENT[augment]).to(device)
    return itertools.chain.from_iterable(source.shuffled(128, 0, epoch) for epoch in itertools.count())


def step(depth: int, device: torch.device) -> Callable[[Examples], None]:
    """A plain step of SGD."""
    model = ResNet(depth, 3, 10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = nn.CrossEntropyLoss()

    def take(batch: Examples) -> None:
        optimizer.zero_grad()
        loss(model(batch.x), batch.y).backward()
        optimizer.step()

    return take


def compare(depth: int, rounds: int, device: torch.device) -> None:
    """Time batches and steps in turn."""
    take = step(depth, device)
    for augment in AUGMENT:
        batches = in_memory(augment, device)
        take(next(batches))
        spent, ratios = [], []
        for _ in range(rounds):
            batch = next(batches)
            spent.append(timed(lambda: next(batches), device))
            ratios.append(spent[-1] / timed(lambda batch=batch: take(batch), device))  # type: ignore[misc]
        print(
            f"{augment:<18} {1 / statistics.median(spent):7.0f} batches a second, "
            f"{statistics.median(ratios):.4f} of a step of ResNet-{depth} (from {min(ratios):.4f} to {max(ratios):.4f})"
        )


def streamed(count: int, workers: int, device: torch.device) -> None:
    """Time an epoch of JPEGs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{k}.jpg" for k in range(count)]
        for k, path in enumerate(paths):
            noise = torch.randint(0, 256, (38, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(k))
            Image.fromarray(noise.numpy()).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        half = torch.full((1, 3, 1, 1), 0.5)
        for count_of_workers in sorted({0, workers}):
            source = Streamed(
                files(paths, [0] * count), 224, Normalise(half, half), flip, True, count_of_workers, device
            )
            seconds = timed(lambda source=source: [None for _ in source.shuffled(64, 0, 0)], device)  # type: ignore[misc]
            print(f"stream, {count_of_workers} workers: {count / seconds:.0f} pictures a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--model", type=int, default=20, help="depth of the ResNet")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=512)
    options = parser.parse_args()
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    torch.manual_seed(0)
    compare(options.model, options.rounds, device)
    streamed(options.pictures, options.workers, device)


if __name__ == "__main__":
    main()
