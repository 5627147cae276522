"""Wrong labels."""

import torch
from torch import Tensor

__all__ = ["flip_labels"]


def flip_labels(labels: Tensor, share: float, classes: int, rng: torch.Generator) -> Tensor:
    """Symmetric noise: move exactly ``round(share * N)`` labels to another class, drawn uniformly."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    shift = torch.randint(1, classes, (len(chosen),), generator=rng)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % classes
    return noisy
