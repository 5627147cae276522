"""Do runs trained together end like runs trained alone? Forty seeds of the digits, both ways, as one JSON.

    python benchmarks/stacking_distribution.py [--seeds 40] [--epochs 6] [--methods sgd,sam]

Rounding makes every run another one after some twenty steps, so single scores differ. What must agree is their
distribution: the mean of the paired differences must lie within its own error of 0, and single differences must be as
large as those of runs that are rounded otherwise for another reason. The third way shows such runs: alone, on inputs
that are a millionth larger.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from unittest.mock import patch

import torch

from bisam_lab.data.examples import InMemory
from bisam_lab.recipe import Recipe, load
from bisam_lab.run.result import RunResult
from bisam_lab.run.train import train, training
from bisam_lab.stack.together import together

STACK = 10


def main() -> None:
    """Train, print and keep the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--methods", default="sgd,sam")
    parser.add_argument("--out", type=Path, default=Path("results/stacking.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load("digits", [f"train.epochs={args.epochs}"])
    ways: dict[str, Callable[[Recipe, str, int], list[RunResult]]] = {
        "stacked": stacked,
        "alone": alone,
        "alone, rounded otherwise": rounded_otherwise,
    }
    found = {
        m: {way: list(map(score, run(recipe, m, args.seeds))) for way, run in ways.items()}
        for m in args.methods.split(",")
    }
    text = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        **vars(args),
        "scores": found,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(text, default=str) + "\n")
    for method, scores in found.items():
        for way, each in scores.items():
            gaps = [100 * (a - b) for a, b in zip(each, scores["alone"], strict=True)]
            print(
                f"{method:12} {way:26} {100 * mean(each):6.2f} +- {100 * stdev(each):.2f} %, beside alone "
                f"{mean(gaps):+.2f} +- {stdev(gaps) / len(gaps) ** 0.5:.2f} points (single runs: {stdev(gaps):.2f})"
            )


def score(result: RunResult) -> float:
    """Return a run's test score."""
    return result.test_score


def stacked(recipe: Recipe, method: str, seeds: int) -> list[RunResult]:
    """Train ten seeds at a time."""
    parts = [range(first, min(first + STACK, seeds)) for first in range(0, seeds, STACK)]
    return [
        result
        for part in parts
        for result in together([partial(training, recipe, method, seed, stack=len(part)) for seed in part])
    ]


def alone(recipe: Recipe, method: str, seeds: int) -> list[RunResult]:
    """Train one seed after the other."""
    return [train(recipe, method, seed) for seed in range(seeds)]


def rounded_otherwise(recipe: Recipe, method: str, seeds: int) -> list[RunResult]:
    """Train one seed after the other, on inputs that are a millionth larger."""

    def moved(self: InMemory, device: torch.device) -> InMemory:
        return replace(self, examples=self.examples.to(device), prepare=lambda x: self.prepare(x) * (1 + 1e-6))

    with patch.object(InMemory, "to", moved):
        return alone(recipe, method, seeds)


if __name__ == "__main__":
    main()
