"""From a data recipe and a seed to training, validation and test examples."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipe import DataRecipe, RecipeError
from .augment import crop_flip
from .examples import Augment, Examples, InMemory, Splits
from .noise import flip_labels
from .sets import READERS

__all__ = ["load_splits"]

_AUGMENT: dict[str, Augment] = {"crop-flip": crop_flip}


def load_splits(recipe: DataRecipe, data_dir: Path | None, seed: int) -> Splits:
    """Read a data set and split it: the same seed gives the same split, noise and examples to every method.

    The test set is the official one (of the digits: the last 597 images) and does not depend on the seed. Pixels are
    normalised by mean and deviation of the training images, channel by channel.

    Raises:
        RecipeError: files that are missing, or fewer examples than the recipe asks for.
    """
    pool, test = _read(recipe, data_dir)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=rng)
    held_out = recipe.validation_size or max(1, len(pool) // 10)
    size = len(pool) - held_out if recipe.train_size is None else recipe.train_size
    if size < 1 or size + held_out > len(pool):
        raise RecipeError(
            f"data.train_size={size} and data.validation_size={held_out} ask for more than the "
            f"{len(pool)} training images of {recipe.name}"
        )
    validation, train = pool[order[:held_out]], pool[order[held_out : held_out + size]]
    classes = int(pool.y.max()) + 1
    train, validation, test = (_resized(part, recipe.image_size) for part in (train, validation, test))
    mean, std = _moments(train.x)
    prepare = partial(_normalised, mean=mean, std=std)
    noisy = Examples(train.x, flip_labels(train.y, recipe.label_noise, classes, rng))
    return Splits(
        train=InMemory(noisy, prepare, _AUGMENT.get(recipe.augment)),
        validation=InMemory(validation, prepare),
        test=InMemory(test, prepare),
        classes=classes,
        shape=tuple(train.x.shape[1:]),
    )


def _read(recipe: DataRecipe, data_dir: Path | None) -> tuple[Examples, Examples]:
    if recipe.name not in READERS:
        raise RecipeError(f"data.name={recipe.name!r}: must be one of {', '.join(READERS)}")
    try:
        return READERS[recipe.name](data_dir)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{recipe.name} in --data-dir {data_dir} cannot be read: {error}") from error


def _resized(images: Examples, size: int | None) -> Examples:
    """Shrink to ``size`` pixels a side, as numbers from 0 to 1; without a size bytes stay bytes."""
    if size is None or size == images.x.shape[-1]:
        return images
    return Examples(F.interpolate(_floats(images.x), (size, size), mode="area"), images.y)


def _floats(x: Tensor) -> Tensor:
    """Turn bytes into numbers from 0 to 1."""
    return x if x.is_floating_point() else x.float() / 255


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, (1, C, 1, 1)."""
    pixels = _floats(x)
    return pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True).clamp(min=1e-6)


def _normalised(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (_floats(x) - mean.to(x.device)) / std.to(x.device)
