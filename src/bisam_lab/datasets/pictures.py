"""Pictures in files: their paths and labels, and one of them decoded."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..errors import RecipeError

__all__ = ["Files", "decode", "files", "natural_size"]


@dataclass(frozen=True)
class Files:
    """Pictures in files, not decoded yet.

    Attributes:
        paths: (N,), as bytes: a million of them take a sixth of the memory of a million strings.
        y: labels (N,) in int64.
    """

    paths: npt.NDArray[np.bytes_]
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Files":
        return Files(self.paths[index.numpy()], self.y[index])


def files(paths: Sequence[str | Path], labels: Sequence[int]) -> Files:
    """Return the pictures at these paths with their labels."""
    return Files(np.array([os.fsencode(path) for path in paths], dtype=np.bytes_), torch.tensor(labels).long())


def decode(path: bytes, size: int, box: Sequence[float] | None = None) -> npt.NDArray[np.uint8]:
    """Read a picture in RGB as (3, size, size): its middle square, or a part of it.

    Args:
        path: of the file.
        size: pixels a side.
        box: height, width, top and left of the part, as ``augment.draw_boxes`` draws them; None: the middle square.

    Raises:
        RecipeError: the file is missing or broken, or is no picture.
    """
    try:
        with Image.open(os.fsdecode(path)) as image:
            width, height = image.size
            _, _, w, h = _part(width, height, box)
            scale = max(size / w, size / h)
            image.draft(
                "RGB", (math.ceil(scale * width), math.ceil(scale * height))
            )  # a JPEG is then decoded at a lower resolution
            rgb = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise RecipeError(f"{os.fsdecode(path)} is broken or no picture: {error}") from None
    left, top, w, h = _part(*rgb.size, box)
    part = rgb.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
    return np.ascontiguousarray(np.asarray(part).transpose(2, 0, 1))


def _part(width: int, height: int, box: Sequence[float] | None) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a part, in pixels."""
    if box is None:
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side
    h, w = max(1.0, box[0] * height), max(1.0, box[1] * width)
    return box[3] * (width - w), box[2] * (height - h), w, h


def natural_size(pictures: Files, otherwise: int, looked_at: int = 200) -> int:
    """Return the shorter side of the pictures if all that are looked at have the same shape, else ``otherwise``."""
    shapes = set()
    for path in pictures.paths[:: max(1, len(pictures) // looked_at)]:
        try:
            with Image.open(os.fsdecode(path)) as image:
                shapes.add(image.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # decoding it raises the error later
    return min(shapes.pop()) if len(shapes) == 1 else otherwise
