"""The metrics, by name: what validation and test measure. A new one is one more entry in :data:`METRICS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METRICS", "Metric", "metric_name"]


@dataclass(frozen=True)
class Metric:
    """A score of predictions; higher is better.

    Attributes:
        name: in a recipe, as ``data.metric``.
        label: on charts and in tables.
        score: of predicted classes (N,) and labels (N,). A class of -1 stands for logits that are not numbers.
        lowest: the least that ``score`` can return: the score of a run that diverged.
    """

    name: str
    label: str
    score: "Callable[[Tensor, Tensor], float]"
    lowest: float = 0.0


def _accuracy(predicted: "Tensor", labels: "Tensor") -> float:
    return int((predicted == labels).sum()) / len(labels)


def _matthews(predicted: "Tensor", labels: "Tensor") -> float:
    from sklearn.metrics import matthews_corrcoef  # here: the import takes a second

    return float(matthews_corrcoef(labels.numpy(), predicted.numpy()))


def _f1(predicted: "Tensor", labels: "Tensor") -> float:
    """Return the F1 of class 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels.numpy() == 1, predicted.numpy() == 1, zero_division=0.0))


#: The metrics that a recipe may name.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", _accuracy),
        Metric("matthews", "Matthews correlation", _matthews, lowest=-1.0),
        Metric("f1", "F1", _f1),
    )
}


def metric_name(name: str) -> str:
    """Return what scores are called in tables and on charts; the name itself if it is not one of ours."""
    return METRICS[name].label if name in METRICS else name
