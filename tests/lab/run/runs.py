"""Runs that are small enough for a test: what they are of, how they are stopped, and what they left."""

import csv

import torch

from bisam_lab.run.checkpoint import read
from bisam_lab.run.observer import Observer

TINY = ("data.train_size=96", "data.validation_size=50", "model.options.width=2", "train.batch_size=32")


class StopAfter(Observer):
    def __init__(self, steps):
        self.left, self.notes = steps, []

    def step(self, epoch, done, total):
        self.left -= 1
        self.stop = self.left == 0

    def note(self, text):
        self.notes.append(text)


def weights(folder):
    return {name: read(folder / "checkpoints" / f"{name}.pt")["model"] for name in ("last", "best")}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True)) and a.keys() == b.keys()


def logged(folder):
    """What the run has logged, but for the seconds, which no two runs have in common."""
    rows = csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def history(result):
    return [
        (e["train_loss"], e["validation_score"], e["learning_rate"], e["passes"], e["gradient_norm"], e["eps_norm"])
        for e in result["history"]
    ]
