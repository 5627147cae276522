"""Long-tailed training sets."""

import math

import torch
from torch import Tensor

__all__ = ["long_tail"]

#: 0.29 of 100 examples are 29, and 28.999999999999996 in floating point.
_ROUNDING = 1e-9


def long_tail(labels: Tensor, ratio: float, classes: int, rng: torch.Generator) -> Tensor:
    """Return the places (n,) of the examples that a long tail keeps, in their order.

    The profile is that of CIFAR-LT (Cui et al., CVPR 2019, arXiv 1901.05555): class i of K keeps the share
    ratio^(i / (K - 1)) of its examples, rounded down, and at least one. Which ones is drawn.
    """
    kept = []
    for label in range(classes):
        (members,) = (labels == label).nonzero(as_tuple=True)
        share = ratio ** (label / max(1, classes - 1))
        size = min(len(members), max(1, math.floor(share * len(members) + _ROUNDING)))
        kept.append(members[torch.randperm(len(members), generator=rng)[:size]])
    return torch.cat(kept).sort().values
