"""Wrong labels, drawn at random."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["flip_labels", "flip_to_partner", "partner_classes"]


def flip_labels(labels: Tensor, share: float, classes: int, rng: torch.Generator) -> Tensor:
    """Symmetric noise: move exactly ``round(share * N)`` labels to another class, drawn uniformly."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    shift = torch.randint(1, classes, (len(chosen),), generator=rng)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % classes
    return noisy


def partner_classes(given: Sequence[int] | None, classes: int) -> Tensor:
    """Return the class that each class is mistaken for, (K,) in int64; without ``given`` it is the next class.

    A class that is mistaken for none has itself as its partner.
    """
    return (torch.arange(classes) + 1) % classes if given is None else torch.tensor(given)


def flip_to_partner(labels: Tensor, share: float, partner: Tensor, rng: torch.Generator) -> Tensor:
    """Asymmetric noise: move ``round(share * N_k)`` labels of each class k to its partner.

    As in the literature, the share is that of each class that has a partner. Five of CIFAR-10's ten classes have one:
    at 40 %, 20 % of all labels are wrong.
    """
    noisy = labels.clone()
    for k in range(len(partner)):
        (members,) = (labels == k).nonzero(as_tuple=True)
        chosen = members[torch.randperm(len(members), generator=rng)[: round(share * len(members))]]
        noisy[chosen] = partner[k]
    return noisy
