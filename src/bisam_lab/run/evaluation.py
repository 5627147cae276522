"""Predictions of a network, and whether they are better than guessing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..data import Source
from ..registry.metrics import METRICS
from .asking import Asking, Forward
from .fabric import Fabric

__all__ = ["collapsed", "commonest", "predictions"]

#: A run has collapsed below this fraction of the way from guessing to certainty.
LEARNT = 0.02


def predictions(
    net: nn.Module, source: Source, fabric: Fabric, between: Callable[[], None] = lambda: None
) -> Asking[Tensor]:
    """Return the predicted class of each example (N,), on the CPU; -1 where a logit is NaN.

    ``between`` is called before each batch. An exception from it ends the evaluation.
    """
    net.eval()
    parts = []
    for batch in source.in_order():
        between()
        logits: Tensor = yield Forward(net, batch.x, fabric)
        parts.append(logits.argmax(1).where(~logits.isnan().any(1), -1))
    return torch.cat(parts).cpu()


def collapsed(predicted: Tensor, labels: Tensor) -> bool:
    """Whether the predictions are hardly better than always naming the commonest class."""
    guessing = int(labels.bincount().max()) / len(labels)
    return METRICS["accuracy"].score(predicted, labels) < guessing + LEARNT * (1 - guessing)


def commonest(predicted: Tensor) -> float:
    """Return the share of the predictions (N,) that are the commonest one; 1 where all logits are NaN."""
    return int((predicted + 1).bincount().max()) / len(predicted)
