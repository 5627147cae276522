"""What a method needs of memory, on paper: the plain step counted on tensors without contents, and the method's copies.

The plain step runs on torch's ``meta`` device, which knows sizes and holds no numbers: weights, gradients, AdamW's two
moments, activations, and what AdamW needs inside its step. A method adds copies of the trained weights, which its
choices declare.
"""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bisam import SharpnessAware
from bisam.combine import AfterStepCombine

from ..memory import metered
from .networks import Network

__all__ = ["Plan", "copies", "plan"]


@dataclass(frozen=True)
class Plan:
    """Bytes of a plain AdamW step at its peak.

    Attributes:
        weights: of the network.
        trained: those that have a gradient.
        peak: the most at one time, all parts included.
    """

    weights: int
    trained: int
    peak: int

    def of(self, number: int) -> int:
        """Return the peak of a method with so many copies."""
        return self.peak + number * self.trained

    def words(self, number: int) -> str:
        """Return the calculation for a method with so many copies, in GiB."""
        parts = {
            "weights": self.weights,
            "gradients": self.trained,
            "AdamW": 2 * self.trained,
            f"{number} copies": number * self.trained,
            "activations and temporaries": self.peak - self.weights - 3 * self.trained,
        }
        sum_ = " + ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return f"{sum_} = {self.of(number) / 2**30:.2f}"


def plan(network: Network, training: str, batch: int, tokens: int) -> Plan:
    """Count a plain step of the network, for a batch of that size."""
    with metered(torch.device("cpu")) as meter:
        with torch.device("meta"):
            model = network.build(training)
            x, y = network.inputs(batch, tokens)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights)
        for _ in range(2):  # the first makes AdamW's moments
            gc.collect()
            meter.reset()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        peak = meter.peak
    return Plan(_bytes(model.parameters()), _bytes(weights), peak)


def _bytes(parameters: Any) -> int:
    return sum(p.numel() * p.itemsize for p in parameters)


def copies(opt: SharpnessAware) -> int:
    """Return how many copies of the trained weights a method holds beside its base optimizer, by its choices.

    One is the weights at w while the others are at w + eps. A combination holds the gradient at w, one that steps after
    the step what it owes, and each vector that a choice remembers is one more.
    """
    choices = opt.estimator
    owed = isinstance(choices.combine, AfterStepCombine)
    return 1 + choices.needs_gradient_at_w + owed + len(choices.memory)
