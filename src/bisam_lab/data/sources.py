"""The sources of batches: memory if all examples fit there, else the files."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.pictures import Files
from ..recipe import DataRecipe, RecipeError
from .augment import augmentation, flip
from .decoding import decode_all
from .examples import Augment, Examples, InMemory, Source
from .normalise import Normalise, floats, moments
from .stream import Streamed

__all__ = ["pictures", "pixels"]

#: Bytes of decoded pictures that are held in memory where ``data.loading`` is auto.
_MEMORY = 2_000_000_000
#: Number of training images from which a stream takes mean and deviation.
_SAMPLE = 2048


def pixels(recipe: DataRecipe, train: Examples, validation: Examples, test: Examples) -> tuple[Source, Source, Source]:
    """Return images in memory, normalised by mean and deviation of the training images, or by the recipe's.

    ``image_size`` shrinks them here, once, or enlarges them batch by batch.
    """
    size = recipe.image_size
    larger = size if size is not None and size > train.x.shape[-1] else None
    if larger is None:
        train, validation, test = (_shrunk(part, size) for part in (train, validation, test))
    prepare = _normalise(recipe, train.x, larger)
    return InMemory(train, prepare, _augment(recipe, prepare)), InMemory(validation, prepare), InMemory(test, prepare)


def _normalise(recipe: DataRecipe, x: Tensor, size: int | None = None) -> Normalise:
    """Normalise by the recipe's numbers, or by those of the images (N, C, H, W)."""
    if recipe.mean is None or recipe.std is None:
        return Normalise(*moments(x), size)
    if len(recipe.mean) != x.shape[1]:
        raise RecipeError(f"data.mean has {len(recipe.mean)} numbers, and {recipe.name} has {x.shape[1]} channels")
    mean, std = (torch.tensor(numbers).reshape(1, -1, 1, 1) for numbers in (recipe.mean, recipe.std))
    return Normalise(mean, std, size)


def _augment(recipe: DataRecipe, prepare: Normalise) -> Augment | None:
    return augmentation(recipe.augment, prepare.black if recipe.pad == "black" else None)


def _shrunk(images: Examples, size: int | None) -> Examples:
    """Shrink to ``size`` pixels a side, as numbers from 0 to 1; without a size bytes stay bytes."""
    if size is None or images.x.shape[-2:] == (size, size):
        return images
    return Examples(F.interpolate(floats(images.x), (size, size), mode="area"), images.y)


def pictures(
    recipe: DataRecipe, train: Files, validation: Files, test: Files, size: int
) -> tuple[Source, Source, Source]:
    """Return pictures in files: decoded once into memory if they fit there, else decoded as a stream.

    Random parts of a picture have the resolution of the file in a stream, and that of the stored picture in memory. A
    stream takes mean and deviation from 2048 training images.
    """
    parts = (train, validation, test)
    if _fits(recipe, sum(map(len, parts)) * 3 * size**2):
        seen, held_out, last = (decode_all(part, size, recipe.name) for part in parts)
        return pixels(recipe, seen, held_out, last)
    sample = decode_all(Files(train.paths[:_SAMPLE], train.y[:_SAMPLE]), size, f"{recipe.name}: statistics of 2048")
    prepare = _normalise(recipe, sample.x)
    from_file = recipe.augment == "resized-crop-flip"
    augment = flip if from_file else _augment(recipe, prepare)
    training = Streamed(train, size, prepare, augment, parts=from_file, workers=recipe.workers)
    still, last_still = (Streamed(part, size, prepare, workers=recipe.workers) for part in (validation, test))
    return training, still, last_still


def _fits(recipe: DataRecipe, size: int) -> bool:
    return recipe.loading == "memory" or (recipe.loading == "auto" and size < _MEMORY)
