"""Wrong labels, drawn by chance."""

import torch
from torch import Tensor

__all__ = ["CIFAR100_SUPERCLASS", "flip_labels", "flip_to_partner", "partners"]

#: CIFAR-100: the superclass of each class, in the numbering of the official files.
CIFAR100_SUPERCLASS = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)
#: CIFAR-10: bird -> airplane, cat <-> dog, deer -> horse, truck -> automobile (Patrini et al., arXiv 1609.03683).
_CIFAR10 = {2: 0, 3: 5, 5: 3, 4: 7, 9: 1}


def flip_labels(labels: Tensor, share: float, classes: int, rng: torch.Generator) -> Tensor:
    """Symmetric noise: move exactly ``round(share * N)`` labels to another class, drawn uniformly."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    shift = torch.randint(1, classes, (len(chosen),), generator=rng)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % classes
    return noisy


def partners(name: str, classes: int) -> Tensor:
    """Return the class that each one is mistaken for, (K,) in int64; a class that never is stands for itself.

    CIFAR-10's are the literature's five, CIFAR-100's the next one in the same superclass, elsewhere the next one.
    """
    partner = (torch.arange(classes) + 1) % classes
    if name == "cifar10":
        partner = torch.tensor([_CIFAR10.get(k, k) for k in range(classes)])
    elif name == "cifar100":
        for group in range(20):
            (members,) = (torch.tensor(CIFAR100_SUPERCLASS) == group).nonzero(as_tuple=True)
            partner[members] = members.roll(-1)
    return partner


def flip_to_partner(labels: Tensor, share: float, partner: Tensor, rng: torch.Generator) -> Tensor:
    """Asymmetric noise: move ``round(share * N_k)`` labels of each class k to its partner.

    As in the literature the share is one of the classes that have a partner: at 40 % on CIFAR-10, whose classes have
    one in five of ten cases, 20 % of all labels are wrong.
    """
    noisy = labels.clone()
    for k in range(len(partner)):
        (members,) = (labels == k).nonzero(as_tuple=True)
        chosen = members[torch.randperm(len(members), generator=rng)[: round(share * len(members))]]
        noisy[chosen] = partner[k]
    return noisy
