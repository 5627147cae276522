"""What a step costs that records its numbers, beside one that does not: medians and quartiles of pairs.

python benchmarks/recording.py
"""

import time

import numpy as np
import torch

from bisam_lab.recipe import load
from bisam_lab.run.asking import alone
from bisam_lab.run.resumable import Training
from bisam_lab.run.seen import Seen

ROUNDS = 20


def ratios(method: str) -> list[float]:
    """Return processor time with recording over that without, a ratio for each pair of steps."""
    runs = [Training(load("digits"), method, 0) for _ in range(2)]
    runs[0].steps._record = False
    batches = list(runs[0].train.shuffled(64, 0, 1))[:15]
    found: list[float] = []
    for run in runs:
        run.steps.begin()
    for turn in range(ROUNDS * len(batches)):
        taken = [0.0, 0.0]
        for one in (0, 1) if turn % 2 else (1, 0):
            began = time.process_time()
            alone(runs[one].steps.step(batches[turn % len(batches)]))
            taken[one] = time.process_time() - began
        found.append(taken[1] / taken[0])
        runs[1].steps.seen = Seen()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("sgd", "sam", "bisam-log"):
        each = ratios(name)
        low, middle, high = np.quantile(each, (0.25, 0.5, 0.75))
        print(f"{name}: {middle:.3f} [{low:.3f}, {high:.3f}] of {len(each)} pairs")
