"""Pictures decoded from their files by other processes while the network trains."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..datasets.pictures import Files, decode
from ..errors import RecipeError
from .augment import draw_boxes
from .examples import Augment, Examples, batches, bounded, placed, stream
from .normalise import Normalise

__all__ = ["Streamed"]


class _Batch(NamedTuple):
    """The places (B,) of a batch's files, and the part of each picture: boxes (B, 4), or None for the middle square."""

    at: Tensor
    boxes: Tensor | None


class _Decoded(Dataset[Any]):
    """Decodes whole batches. It returns an error as its text: a worker process would wrap the exception in its own."""

    def __init__(self, paths: npt.NDArray[np.bytes_], size: int) -> None:
        self.paths, self.size = paths, size

    def __getitem__(self, batch: _Batch) -> Tensor | str:
        boxes = [None] * len(batch.at) if batch.boxes is None else batch.boxes.tolist()
        paths = self.paths[batch.at.numpy()]
        try:
            return torch.from_numpy(np.stack([decode(p, self.size, box) for p, box in zip(paths, boxes, strict=True)]))
        except RecipeError as error:
            return str(error)


@dataclass(frozen=True)
class Streamed:
    """Pictures that worker processes decode ahead of the training.

    The content of a batch depends on seed, epoch and position alone, not on the number of workers. ``start`` skips
    batches without decoding them.

    Attributes:
        files: the pictures.
        size: pixels a side.
        prepare: normalises a batch of bytes, on the device.
        augment: changes a training batch, on the device; None: no augmentation.
        parts: whether training takes a random part of each picture, at the resolution of the file.
        workers: number of processes; 0 decodes in this one.
        device: device of the batches.
        rows: says which rows of a batch are decoded; None: all.
    """

    files: Files
    size: int
    prepare: Normalise
    augment: Augment | None = None
    parts: bool = False
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rows: Callable[[int], slice] | None = None

    @property
    def labels(self) -> Tensor:
        """Labels (N,), on the CPU."""
        return self.files.y

    def __len__(self) -> int:
        return len(self.files)

    def shuffled(self, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Examples]:
        """Yield one epoch's batches in random order, augmented, beginning with batch number ``start``."""
        order = batches(torch.randperm(len(self), generator=stream(seed, epoch)), size)[start:]
        chance = [stream(seed, epoch, number) for number in range(start, start + len(order))]
        plan = [
            _Batch(index, draw_boxes(len(index), rng) if self.parts else None)
            for index, rng in zip(order, chance, strict=True)
        ]
        for batch, rng in zip(self._decoded(plan), chance, strict=True):
            yield batch if self.augment is None else Examples(self.augment(batch.x, rng), batch.y)

    def in_order(self, size: int = 1000) -> Iterator[Examples]:
        """Yield all examples once, as they are, at most ``size`` at a time."""
        plan = torch.arange(len(self)).split(bounded(size, 3 * self.size**2))
        yield from self._decoded([_Batch(index, None) for index in plan])

    def to(self, device: torch.device) -> "Streamed":
        """Send batches to ``device``."""
        return replace(self, device=device)

    def only(self, rows: Callable[[int], slice]) -> "Streamed":
        """Decode only some rows of each batch; the others are zero before they are augmented."""
        return replace(self, rows=rows)

    def _decoded(self, plan: list[_Batch]) -> Iterator[Examples]:
        pinned = self.device.type == "cuda"
        workers = min(self.workers, len(plan), os.cpu_count() or 1)
        loader = DataLoader(
            _Decoded(self.files.paths, self.size),
            batch_size=None,  # a batch is one item: one process decodes the whole of it
            sampler=[self._mine(batch) for batch in plan],
            num_workers=workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # an epoch must not draw from the global one: dropout does
        )
        for batch, pixels in zip(plan, loader, strict=True):
            if isinstance(pixels, str):
                raise RecipeError(pixels)
            x = self._among(self.prepare(placed(pixels, self.device)), len(batch.at))
            yield Examples(x, placed(self.files.y[batch.at], self.device))

    def _mine(self, batch: _Batch) -> _Batch:
        """Return the rows of a batch that are decoded."""
        if self.rows is None:
            return batch
        rows = self.rows(len(batch.at))
        return _Batch(batch.at[rows], None if batch.boxes is None else batch.boxes[rows])

    def _among(self, x: Tensor, size: int) -> Tensor:
        """Return decoded rows in their places among those of the whole batch."""
        if self.rows is None:
            return x
        whole = x.new_zeros((size, *x.shape[1:]))
        whole[self.rows(size)] = x
        return whole
