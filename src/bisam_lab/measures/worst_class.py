"""The class that fares worst: what a mean over all examples hides where classes are rare."""

import torch

from .subject import Subject, right

__all__ = ["worst_class"]


def worst_class(subject: Subject) -> dict[str, float]:
    """Return the accuracy of the ``worst`` class and the ``mean`` over the classes that the test set has."""
    logits, labels = subject.logits(subject.test), subject.test.labels
    hits = right(logits, labels).double()
    each = torch.stack([hits[labels == label].mean() for label in labels.unique()])
    return {"worst": float(each.min()), "mean": float(each.mean())}
