"""Splits by the seed, and the errors of sizes."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bisam_lab.data import load_splits, whole
from bisam_lab.recipe import DataRecipe, RecipeError
from tests.lab.painting import recipe


def test_splits_are_disjoint_paired_by_seed_and_normalised():
    recipe = DataRecipe(train_size=900, validation_size=200, label_noise=0.4)
    a, b, other = (load_splits(recipe, None, seed) for seed in (3, 3, 4))
    assert torch.equal(whole(a.train).x, whole(b.train).x)
    assert torch.equal(whole(a.train).y, whole(b.train).y)
    assert not torch.equal(whole(a.train).x, whole(other.train).x)
    assert torch.equal(whole(a.test).y, whole(other.test).y)
    assert (len(a.train), len(a.validation), len(a.test), a.classes) == (900, 200, 597, 10)
    pixels = {row.numpy().tobytes() for row in whole(a.train).x.round(decimals=4)}
    shared = sum(row.numpy().tobytes() in pixels for row in whole(a.validation).x.round(decimals=4))
    assert shared == 0
    assert whole(a.train).x.mean().abs() < 1e-5
    assert abs(whole(a.train).x.std() - 1) < 1e-3


def test_one_split_for_all_runs_is_the_one_that_numpy_shuffles():
    recipe = DataRecipe(split_seed=42, label_noise=0.4)
    a, b = (load_splits(recipe, None, seed) for seed in (0, 1))
    order = list(range(1200))
    np.random.seed(42)
    np.random.shuffle(order)
    clean = load_splits(DataRecipe(split_seed=42), None, 0)
    labels = load_digits().target
    assert clean.validation.labels.tolist() == labels[order[:120]].tolist()
    assert clean.train.labels.tolist() == labels[order[120:]].tolist()
    assert torch.equal(whole(a.validation).x, whole(b.validation).x)
    assert torch.equal(whole(a.train).x, whole(b.train).x)
    assert not torch.equal(a.train.labels, b.train.labels)  # wrong labels are each run's own


def test_given_statistics_and_black_borders(monkeypatch):
    recipe = DataRecipe(mean=[0.26], std=[0.5], augment="crop-flip", pad="black")
    splits, usual = (load_splits(given, None, 0) for given in (recipe, DataRecipe()))
    pixels = usual.test.examples.x / (1 if usual.test.examples.x.is_floating_point() else 255)
    assert torch.equal(whole(splits.test).x, (pixels - 0.26) / 0.5)
    batch = next(splits.train.shuffled(100, 0, 1)).x
    black = (batch[:, 0, 0] == batch.min()).all(1)
    assert batch.min() == -torch.tensor(0.26) / 0.5
    assert black.float().mean() > 0.3  # of the first row: it may lie up to 4 rows outside
    assert (batch != 0).all()  # no pixel has the mean colour


def test_noise_moves_exactly_its_share_and_touches_training_labels_alone():
    clean = load_splits(DataRecipe(train_size=1000), None, 0)
    noisy = load_splits(DataRecipe(train_size=1000, label_noise=0.4), None, 0)
    assert (whole(clean.train).y != whole(noisy.train).y).sum() == 400
    assert torch.equal(whole(clean.train).x, whole(noisy.train).x)
    assert torch.equal(whole(clean.validation).y, whole(noisy.validation).y)
    assert torch.equal(whole(clean.test).y, whole(noisy.test).y)


def test_errors():
    with pytest.raises(RecipeError, match="more than the 1200 training images"):
        load_splits(DataRecipe(train_size=1100), None, 0)
    with pytest.raises(RecipeError, match=r"data\.mean has 3 numbers, and digits has 1 channels"):
        load_splits(DataRecipe(mean=[0.5] * 3, std=[0.5] * 3), None, 0)
    with pytest.raises(RecipeError, match="--data-dir"):
        load_splits(DataRecipe(name="cifar100"), None, 0)


def test_a_tiny_folder_has_every_class_everywhere(painted):
    splits = load_splits(recipe(painted), None, 0)
    for part, each in ((splits.train, [14, 15, 15]), (splits.validation, [1, 1, 2]), (splits.test, [4, 4, 4])):
        assert sorted(part.labels.bincount().tolist()) == each
    assert (splits.classes, splits.shape) == (3, (3, 16, 16))
    x = whole(splits.train).x
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_the_test_set_is_the_same_whatever_the_seed(painted):
    a, b = (load_splits(recipe(painted), None, seed) for seed in (0, 1))
    assert torch.equal(whole(a.test).y, whole(b.test).y)
    assert not torch.equal(a.validation.examples.x, b.validation.examples.x)
    assert torch.equal(a.test.examples.x, b.test.examples.x)


def test_sizes(painted):
    splits = load_splits(recipe(painted, test_size=3, validation_size=6, train_size=9), None, 0)
    for part, each in ((splits.train, 3), (splits.validation, 2), (splits.test, 1)):
        assert part.labels.bincount().tolist() == [each] * 3
    with pytest.raises(RecipeError, match="test_size=13 is more than the 12"):
        load_splits(recipe(painted, test_size=13), None, 0)
    with pytest.raises(RecipeError, match="more than the 48 training images"):
        load_splits(recipe(painted, train_size=48), None, 0)
    with pytest.raises(RecipeError, match="loading=stream is for pictures in files"):
        load_splits(DataRecipe(loading="stream"), None, 0)
