"""Forgetting: what a second task costs the first one.

The second task is the first with its inputs permuted, the same for all examples (Goodfellow et al., arXiv 1312.6211):
pixels of an image by one permutation of their places; words of a text by one permutation of the vocabulary, in which
those that stand in every text, such as the marks of its beginning and end, stay. The network trains on it for one epoch
with plain SGD, learning rate 0.01 and momentum 0.9, whatever it was trained with. All weights take part, those of the
head, too, and statistics of BatchNorm follow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.examples import Examples, Source, stream
from .subject import Subject

__all__ = ["forgetting"]

EPOCHS, RATE, MOMENTUM = 1, 0.01, 0.9
#: Texts that tell which words stand in every one.
_TEXTS = 200


@dataclass(frozen=True)
class _Permuted:
    """A source whose inputs are permuted.

    Attributes:
        source: of the first task.
        order: of the pixels' places (H * W,), or the new word of each word (V,).
    """

    source: Source
    order: Tensor

    @property
    def labels(self) -> Tensor:
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def shuffled(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Examples]:
        for batch in self.source.shuffled(size, seed, epoch, start):
            yield Examples(self._permuted(batch.x), batch.y)

    def in_order(self, size: int = 1000) -> Iterator[Examples]:
        for batch in self.source.in_order(size):
            yield Examples(self._permuted(batch.x), batch.y)

    def to(self, device: torch.device) -> "_Permuted":
        return _Permuted(self.source.to(device), self.order.to(device))

    def _permuted(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return x.flatten(2)[:, :, self.order.to(x.device)].view(x.shape)
        ids, others = x[:, :1], x[:, 1:]
        return torch.cat([self.order.to(x.device)[ids], others], 1)


def forgetting(subject: Subject) -> dict[str, float]:
    """Return the accuracy ``lost`` on the first task, and that on the ``second``."""
    rng = stream(subject.seed, 1)
    first = next(subject.train.in_order(_TEXTS)).x.cpu()
    order = torch.randperm(first[0, 0].numel(), generator=rng) if first.is_floating_point() else _words(subject, rng)
    before = subject.accuracy(subject.test)
    with subject.changed() as params:
        opt = torch.optim.SGD([param for _, param in params if param.requires_grad], lr=RATE, momentum=MOMENTUM)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(subject.seed)
            subject.learn(_Permuted(subject.train, order), opt, EPOCHS)
        after = subject.accuracy(subject.test)
        second = subject.accuracy(_Permuted(subject.test, order))
    return {"lost": before - after, "second": second}


def _words(subject: Subject, rng: torch.Generator) -> Tensor:
    """Return a permutation of the words that leaves those that stand in every text (their ids; filling, too)."""
    parts = [batch.x[:, :2].cpu() for source in (subject.train, subject.test) for batch in source.in_order()]
    ids, masks = torch.cat([part[:, 0] for part in parts]), torch.cat([part[:, 1] for part in parts])
    count = int(ids.max()) + 1
    stays = torch.zeros(count, dtype=torch.bool)
    stays[ids[masks == 0]] = True
    several = ids[:_TEXTS]
    for word in several[0].unique():
        stays[word] |= bool((several == word).any(1).all())
    (moving,) = (~stays).nonzero(as_tuple=True)
    order = torch.arange(count)
    order[moving] = moving[torch.randperm(len(moving), generator=rng)]
    return order
