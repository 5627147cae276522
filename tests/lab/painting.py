"""Small pictures that tests make, and their recipe."""

import io

import numpy as np
from PIL import Image

from bisam_lab.recipe import DataRecipe

CLASSES = ("cat", "dog", "owl")
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)


def paint(path, seed, size=(24, 20)):
    """Write a smooth picture of its own, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def recipe(folder, **fields):
    """Return the recipe of a folder of pictures, at 16 pixels a side."""
    return DataRecipe(name=f"folder:{folder}", **{"image_size": 16, **fields})


def jpeg(k=0):
    """Return a file of noise."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(buffer, "jpeg")
    return buffer.getvalue()
