"""Files of pictures: which there are, and one of them decoded."""

import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..recipe import RecipeError
from .examples import Examples

__all__ = ["Files", "decode", "decode_all", "files", "natural_size"]

_PATIENCE = 2.0  # seconds without a word


@dataclass(frozen=True)
class Files:
    """Pictures that still lie in their files.

    Attributes:
        paths: (N,), as bytes, which take a sixth of the memory that a million strings would.
        y: labels (N,) in int64.
    """

    paths: npt.NDArray[np.bytes_]
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Files":
        return Files(self.paths[index.numpy()], self.y[index])


def files(paths: Sequence[str | Path], labels: Sequence[int]) -> Files:
    """Return pictures with their labels."""
    return Files(np.array([os.fsencode(path) for path in paths], dtype=np.bytes_), torch.tensor(labels).long())


def decode(path: bytes, size: int, box: Sequence[float] | None = None) -> npt.NDArray[np.uint8]:
    """Read a picture in RGB as (3, size, size): its middle square, or a part of it.

    Args:
        path: of the file.
        size: pixels a side.
        box: height, width, top and left as ``augment.draw_boxes`` draws them.

    Raises:
        RecipeError: a file that is missing, broken, or no picture.
    """
    try:
        with Image.open(os.fsdecode(path)) as image:
            width, height = image.size
            _, _, w, h = _part(width, height, box)
            scale = max(size / w, size / h)
            image.draft("RGB", (math.ceil(scale * width), math.ceil(scale * height)))  # a JPEG may spare finer detail
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


def decode_all(pictures: Files, size: int, what: str) -> Examples:
    """Decode all pictures, in as many threads as there are cores, into bytes (N, 3, size, size)."""
    x = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    began = told = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for number, pixels in enumerate(pool.map(lambda path: decode(path, size), pictures.paths)):
                x[number] = torch.from_numpy(pixels)
                now = time.monotonic()
                if now - began > _PATIENCE and now - told > _PATIENCE:
                    told = now
                    print(f"reading {what}: {number + 1} of {len(pictures)} pictures", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Examples(x, pictures.y)


def natural_size(pictures: Files, otherwise: int, looked_at: int = 200) -> int:
    """Return the shorter side of the pictures if all have the same shape (of so many looked at), else ``otherwise``."""
    shapes = set()
    for path in pictures.paths[:: max(1, len(pictures) // looked_at)]:
        try:
            with Image.open(os.fsdecode(path)) as image:
                shapes.add(image.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # decoding it will say so
    return min(shapes.pop()) if len(shapes) == 1 else otherwise
