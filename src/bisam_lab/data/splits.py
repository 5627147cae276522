"""Training, validation and test examples, from a data recipe and a seed."""

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..datasets.pictures import Files
from ..recipe import DataRecipe, RecipeError
from .examples import Examples, InMemory, Source, Splits
from .find import find
from .human import human_labels
from .imbalance import long_tail
from .noise import flip_labels, flip_to_partner, partner_classes
from .read import Read, read
from .sources import pictures, pixels

__all__ = ["load_splits"]

Part: TypeAlias = Examples | Files
Three: TypeAlias = tuple[Source, Source, Source]


def load_splits(recipe: DataRecipe, data_dir: Path | None, seed: int, *, tokenizer: str | None = None) -> Splits:
    """Read a data set and split it. With the same seed, every method gets the same split, noise and examples.

    The test set is the official one (of the digits: the last 597 images) and does not depend on the seed. Pixels are
    normalised by mean and deviation of the training images, or by the recipe's, channel by channel. Only training
    labels are made wrong, and only training examples are left out for a long tail: validation and test keep the
    classes' shares, as in CIFAR-LT.

    Args:
        recipe: which data set, how many examples, and what is done to them.
        data_dir: the folder that holds the data sets.
        seed: of the split, unless the recipe gives that one, and of the noise.
        tokenizer: for texts: the name of a published model, or a type such as ``bert``, for which one is made here.

    Raises:
        RecipeError: files are missing or broken, or there are fewer examples than the recipe asks for.
    """
    found = read(recipe, data_dir, tokenizer)
    rng = torch.Generator().manual_seed(seed)
    train_at, validation_at = _divided(recipe, found, rng)
    if recipe.imbalance is not None:
        train_at = train_at[long_tail(found.pool.y[train_at], recipe.imbalance, found.classes, rng)]
    noisy = _noisy(recipe, found, train_at, data_dir, rng)
    train = replace(found.pool[train_at], y=noisy)
    validation, test = found.pool[validation_at], _spread(found.test, recipe)
    sources = _sources(recipe, found, train, validation, test)
    first = next(sources[1].in_order(1)).x
    shape = tuple(first.shape[1:])
    return Splits(*sources, classes=found.classes, shape=shape, vocabulary=found.vocabulary, note=found.note)


def _sources(recipe: DataRecipe, found: Read, train: Part, validation: Part, test: Part) -> Three:
    if isinstance(train, Files) and isinstance(validation, Files) and isinstance(test, Files):
        return pictures(recipe, train, validation, test, recipe.image_size or found.size)
    assert isinstance(train, Examples) and isinstance(validation, Examples) and isinstance(test, Examples)
    if recipe.loading == "stream":
        raise RecipeError(f"data.loading=stream is for pictures in files: {recipe.name} is read whole")
    if found.vocabulary is None:
        return pixels(recipe, train, validation, test)
    return InMemory(train, _widened), InMemory(validation, _widened), InMemory(test, _widened)


def _divided(recipe: DataRecipe, found: Read, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the training examples and the validation examples from the pool; return their places in it."""
    pool = len(found.pool)
    order = torch.randperm(pool, generator=rng) if recipe.split_seed is None else _the_same(pool, recipe.split_seed)
    least = 1
    if found.even:
        order, least = _evenly(order, found.pool.y, found.classes), found.classes
    held_out = recipe.validation_size or max(least, pool // 10)
    size = pool - held_out if recipe.train_size is None else recipe.train_size
    if size < 1 or size + held_out > pool:
        raise RecipeError(
            f"data.train_size={size} and data.validation_size={held_out} ask for more than the "
            f"{pool} training {'texts' if found.vocabulary else 'images'} of {recipe.name}"
        )
    return order[held_out : held_out + size], order[:held_out]


def _the_same(pool: int, seed: int) -> Tensor:
    """Return the order that ``numpy.random.seed(seed)`` and ``shuffle`` make, as in the BiSAM authors' code."""
    return torch.from_numpy(np.random.RandomState(seed).permutation(pool))


def _evenly(order: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Reorder so that the first k examples hold the classes in proportion, for every k; one of each class is first."""
    counts = labels.bincount(minlength=classes)
    places = torch.empty(len(order), dtype=torch.float64)
    for label in range(classes):
        (members,) = (labels[order] == label).nonzero(as_tuple=True)
        places[members] = torch.arange(len(members), dtype=torch.float64) / counts[label].clamp(min=1)
    return order[places.argsort(stable=True)]


def _noisy(recipe: DataRecipe, found: Read, at: Tensor, data_dir: Path | None, rng: torch.Generator) -> Tensor:
    """Return the training labels, with the recipe's noise."""
    clean = found.pool.y
    if recipe.noise.startswith("cifar-n:"):
        return human_labels(recipe.noise, recipe.name, clean, data_dir)[at]
    if recipe.noise == "asymmetric":
        partner = partner_classes(find(recipe.name).partners, found.classes)
        return flip_to_partner(clean[at], recipe.label_noise, partner, rng)
    return flip_labels(clean[at], recipe.label_noise, found.classes, rng)


def _spread(test: Part, recipe: DataRecipe) -> Part:
    """Return as many test examples as the recipe says, at even distances."""
    if recipe.test_size is None:
        return test
    if recipe.test_size > len(test):
        raise RecipeError(f"data.test_size={recipe.test_size} is more than the {len(test)} test examples")
    return test[torch.arange(recipe.test_size) * len(test) // recipe.test_size]


def _widened(x: Tensor) -> Tensor:
    """Turn tokens in int32 into int64, which networks take."""
    return x.long()
