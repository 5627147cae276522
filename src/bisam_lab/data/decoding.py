"""Pictures in files decoded into memory, with a line of progress where it takes long."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from ..datasets.pictures import Files, decode
from .examples import Examples

__all__ = ["decode_all"]

_PATIENCE = 2.0  # seconds between two lines of progress


def decode_all(pictures: Files, size: int, what: str) -> Examples:
    """Decode all pictures into bytes (N, 3, size, size), in as many threads as there are cores.

    Args:
        pictures: which ones.
        size: pixels a side.
        what: their name, for the line of progress.

    Raises:
        RecipeError: a file is missing or broken, or is no picture.
    """
    x = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    reported = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for number, pixels in enumerate(pool.map(lambda path: decode(path, size), pictures.paths)):
                x[number] = torch.from_numpy(pixels)
                now = time.monotonic()
                if now - reported > _PATIENCE:
                    reported = now
                    print(f"reading {what}: {number + 1} of {len(pictures)} pictures", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Examples(x, pictures.y)
