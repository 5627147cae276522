"""What validation and test measure."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .data import Source

__all__ = ["collapsed", "predictions", "score"]

#: Share of the way from guessing to certainty below which nothing has been learnt.
LEARNT = 0.02


@torch.no_grad()
def predictions(net: nn.Module, source: Source, between: Callable[[], None] = lambda: None) -> Tensor:
    """Return the predicted class of every example (N,), on the CPU; -1 where a logit is not a number.

    ``between`` is called before each batch; what it raises ends the evaluation.
    """
    net.eval()
    parts = []
    for batch in source.in_order():
        between()
        logits = net(batch.x)
        parts.append(logits.argmax(1).where(~logits.isnan().any(1), -1))
    return torch.cat(parts).cpu()


def score(predicted: Tensor, labels: Tensor, metric: str) -> float:
    """Return accuracy, Matthews' correlation or the F1 of class 1."""
    if metric == "accuracy":
        return int((predicted == labels).sum()) / len(labels)
    from sklearn.metrics import f1_score, matthews_corrcoef  # here, for it takes a second that accuracy need not pay

    if metric == "matthews":
        return float(matthews_corrcoef(labels.numpy(), predicted.numpy()))
    return float(f1_score(labels.numpy() == 1, predicted.numpy() == 1, zero_division=0.0))


def collapsed(predicted: Tensor, labels: Tensor) -> bool:
    """Whether predictions are hardly better than always naming the commonest class."""
    guessing = int(labels.bincount().max()) / len(labels)
    return score(predicted, labels, "accuracy") < guessing + LEARNT * (1 - guessing)
