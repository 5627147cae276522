"""The class that fares worst: what a mean over all examples hides where classes are rare."""

import torch

from .subject import Subject

__all__ = ["worst_class"]


def worst_class(subject: Subject) -> dict[str, float]:
    """Return the accuracy of the ``worst`` class and the ``mean`` over the classes that the test set has."""
    logits, labels = subject.logits(subject.test), subject.test.labels
    right = (logits.argmax(1).eq(labels) & ~logits.isnan().any(1)).double()
    each = torch.stack([right[labels == label].mean() for label in labels.unique()])
    return {"worst": float(each.min()), "mean": float(each.mean())}
