"""Where batches come from: memory, if all fits there, or the files."""

import torch.nn.functional as F

from ..recipe import DataRecipe
from .augment import AUGMENT, flip
from .examples import Examples, InMemory, Source
from .normalise import Normalise, floats, moments
from .pictures import Files, decode_all
from .stream import Streamed

__all__ = ["pictures", "pixels"]

#: Bytes of decoded pictures that are held in memory where ``data.loading`` is auto.
_MEMORY = 2_000_000_000
#: Training images that a stream's statistics are those of.
_SAMPLE = 2048


def pixels(recipe: DataRecipe, train: Examples, validation: Examples, test: Examples) -> tuple[Source, Source, Source]:
    """Return images in memory, normalised by the training images' own statistics.

    Smaller than they are, they are shrunk here once; larger, batch by batch.
    """
    size = recipe.image_size
    larger = size if size is not None and size > train.x.shape[-1] else None
    if larger is None:
        train, validation, test = (_shrunk(part, size) for part in (train, validation, test))
    prepare = Normalise(*moments(train.x), larger)
    return InMemory(train, prepare, AUGMENT[recipe.augment]), InMemory(validation, prepare), InMemory(test, prepare)


def _shrunk(images: Examples, size: int | None) -> Examples:
    """Shrink to ``size`` pixels a side, as numbers from 0 to 1; without a size bytes stay bytes."""
    if size is None or images.x.shape[-2:] == (size, size):
        return images
    return Examples(F.interpolate(floats(images.x), (size, size), mode="area"), images.y)


def pictures(
    recipe: DataRecipe, train: Files, validation: Files, test: Files, size: int
) -> tuple[Source, Source, Source]:
    """Return pictures from files: decoded once into memory if they are small enough, else decoded as they are needed.

    A stream takes random parts of a picture from the file itself, memory from the picture at the size it is kept in;
    a stream's statistics are those of 2048 training images.
    """
    parts = (train, validation, test)
    if _fits(recipe, sum(map(len, parts)) * 3 * size**2):
        seen, held_out, last = (decode_all(part, size, recipe.name) for part in parts)
        return pixels(recipe, seen, held_out, last)
    sample = decode_all(Files(train.paths[:_SAMPLE], train.y[:_SAMPLE]), size, f"{recipe.name}: statistics of 2048")
    prepare = Normalise(*moments(sample.x))
    from_file = recipe.augment == "resized-crop-flip"
    augment = flip if from_file else AUGMENT[recipe.augment]
    training = Streamed(train, size, prepare, augment, parts=from_file, workers=recipe.workers)
    still, last_still = (Streamed(part, size, prepare, workers=recipe.workers) for part in (validation, test))
    return training, still, last_still


def _fits(recipe: DataRecipe, size: int) -> bool:
    return recipe.loading == "memory" or (recipe.loading == "auto" and size < _MEMORY)
