"""Examples, and the sources of their batches."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from bisam._vectors.random import seeded

__all__ = [
    "Augment",
    "Examples",
    "InMemory",
    "Source",
    "Splits",
    "batches",
    "bounded",
    "count_batches",
    "placed",
    "stream",
    "whole",
]

#: Changes a batch of inputs, with random numbers from a generator on the CPU.
Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Examples:
    """Inputs and their labels.

    Attributes:
        x: pixels (N, C, H, W), or tokens (N, 3, S): ids, attention mask and segments.
        y: labels (N,) in int64.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Examples":
        return Examples(self.x[index], self.y[index])

    def to(self, device: torch.device) -> "Examples":
        """Move to ``device``."""
        return Examples(placed(self.x, device), placed(self.y, device))


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on ``device``. On CUDA, do not wait for running kernels."""
    return tensor.to(device, non_blocking=device.type == "cuda")


class Source(Protocol):
    """A source of batches. An epoch's batches depend on seed, epoch and position alone."""

    @property
    def labels(self) -> Tensor:
        """Labels (N,) of all examples, in the source's own order, on the CPU."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def shuffled(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Examples]:
        """Yield one epoch's batches in random order, augmented, beginning with batch number ``start``."""

    def in_order(self, size: int = 1000) -> Iterator[Examples]:
        """Yield all examples once, in order and without augmentation, at most ``size`` at a time."""

    def to(self, device: torch.device) -> "Source":
        """Return the source with its batches on ``device``."""


@dataclass(frozen=True)
class Splits:
    """The three splits. Training labels may be noisy; those of validation and test are clean.

    Attributes:
        train: training examples.
        validation: examples that choose the epoch and the settings.
        test: test examples, read once a run.
        classes: how many.
        shape: of one input.
        vocabulary: number of tokens, where inputs are tokens.
        note: one sentence for who trains on them, such as that the files are not the official ones; empty: nothing.
    """

    train: Source
    validation: Source
    test: Source
    classes: int
    shape: tuple[int, ...]
    vocabulary: int | None = None
    note: str = ""


@dataclass(frozen=True)
class InMemory:
    """Examples in memory, on any device, prepared and augmented there batch by batch.

    Attributes:
        examples: as they were read.
        prepare: turns a batch of stored inputs into the network's inputs.
        augment: changes a training batch; None: no augmentation.
    """

    examples: Examples
    prepare: Callable[[Tensor], Tensor] = lambda x: x
    augment: Augment | None = None

    @property
    def labels(self) -> Tensor:
        """Labels (N,), on the CPU."""
        return self.examples.y.cpu()

    def __len__(self) -> int:
        return len(self.examples)

    def shuffled(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Examples]:
        """Yield one epoch's batches in random order, augmented, beginning with batch number ``start``."""
        order = batches(torch.randperm(len(self), generator=stream(seed, epoch)), size)
        for number, index in enumerate(order[start:], start):
            batch = self.examples[placed(index, self.examples.y.device)]
            x = self.prepare(batch.x)
            yield Examples(x if self.augment is None else self.augment(x, stream(seed, epoch, number)), batch.y)

    def in_order(self, size: int = 1000) -> Iterator[Examples]:
        """Yield all examples once, in order and without augmentation, at most ``size`` at a time."""
        size = bounded(size, self.examples.x[0].numel())
        for x, y in zip(self.examples.x.split(size), self.examples.y.split(size), strict=True):
            yield Examples(self.prepare(x), y)

    def to(self, device: torch.device) -> "InMemory":
        """Move the examples to ``device``."""
        return InMemory(self.examples.to(device), self.prepare, self.augment)


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut the examples of an epoch into batches. A last batch of one joins the one before: BatchNorm needs two."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def count_batches(examples: int, size: int) -> int:
    """Return how many batches :func:`batches` makes."""
    return max(1, math.ceil((examples - 1) / size))


def whole(source: Source) -> Examples:
    """Return all examples of a source, prepared for the network, without augmentation."""
    parts = list(source.in_order())
    return Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def bounded(size: int, numbers: int) -> int:
    """Return ``size``, or less where a batch of inputs of ``numbers`` numbers would take more than 64 MB."""
    return max(1, min(size, 16_000_000 // max(1, numbers)))


def stream(seed: int, *where: int) -> torch.Generator:
    """Return a generator on the CPU for one place of a run: an epoch, or a batch of an epoch.

    Its random numbers depend on the place alone. So a run can resume within an epoch with the same numbers.
    """
    return torch.Generator().manual_seed(seeded(seed, *where))
