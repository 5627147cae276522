"""Predictions of a network, and whether they are better than guessing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..data import Source
from ..registry.metrics import METRICS
from .asking import Asking, Forward
from .fabric import Fabric
from .team import Team

__all__ = ["collapsed", "commonest", "predictions"]

#: A run has collapsed below this fraction of the way from guessing to certainty.
LEARNT = 0.02


def predictions(
    net: nn.Module,
    source: Source,
    fabric: Fabric,
    between: Callable[[], None] = lambda: None,
    team: Team | None = None,
) -> Asking[Tensor]:
    """Return the predicted class of each example (N,), on the CPU; -1 where a logit is NaN.

    ``between`` is called before each batch. An exception from it ends the evaluation. Each process of a team predicts
    its part of each batch, and all return the whole.
    """
    if team is not None and team.size > 1:
        return (yield from _shared(net, source, fabric, between, team))
    net.eval()
    parts = []
    for batch in source.in_order():
        between()
        parts.append(_classes((yield Forward(net, batch.x, fabric))))
    return torch.cat(parts).cpu()


def _classes(logits: Tensor) -> Tensor:
    """Return the class of the largest logit (N,); -1 where one is NaN."""
    return logits.argmax(1).where(~logits.isnan().any(1), -1)


def _shared(net: nn.Module, source: Source, fabric: Fabric, between: Callable[[], None], team: Team) -> Asking[Tensor]:
    """Return what :func:`predictions` does; every process makes as many forward passes as the others."""
    net.eval()
    parts = []
    for batch in source.in_order():
        between()
        part = team.part(len(batch))
        predicted = _classes((yield Forward(net, batch.x[part.rows], fabric)))
        ours = torch.zeros(len(batch), dtype=predicted.dtype, device=predicted.device)
        if part.share:
            ours[part.rows] = predicted
        parts.append(ours)
    return team.summed(torch.cat(parts))


def collapsed(predicted: Tensor, labels: Tensor) -> bool:
    """Whether the predictions are hardly better than always naming the commonest class."""
    guessing = int(labels.bincount().max()) / len(labels)
    return METRICS["accuracy"].score(predicted, labels) < guessing + LEARNT * (1 - guessing)


def commonest(predicted: Tensor) -> float:
    """Return the share of the predictions (N,) that are the commonest one; 1 where all logits are NaN."""
    return int((predicted + 1).bincount().max()) / len(predicted)
