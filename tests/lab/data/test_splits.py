"""Splits, noise, augmentation, and the official formats."""

import numpy as np
import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.augment import crop_flip
from bisam_lab.data.examples import batches, count_batches
from bisam_lab.data.noise import flip_labels
from bisam_lab.recipe import DataRecipe, RecipeError


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


def test_noise_moves_exactly_its_share_and_touches_training_labels_alone():
    clean = load_splits(DataRecipe(train_size=1000), None, 0)
    noisy = load_splits(DataRecipe(train_size=1000, label_noise=0.4), None, 0)
    assert (whole(clean.train).y != whole(noisy.train).y).sum() == 400
    assert torch.equal(whole(clean.train).x, whole(noisy.train).x)
    assert torch.equal(whole(clean.validation).y, whole(noisy.validation).y)
    assert torch.equal(whole(clean.test).y, whole(noisy.test).y)


def test_a_single_example_left_over_joins_the_last_batch():
    assert [len(part) for part in batches(torch.arange(9), 4)] == [4, 5]
    assert [len(part) for part in batches(torch.arange(10), 4)] == [4, 4, 2]
    assert [len(part) for part in batches(torch.arange(1), 4)] == [1]
    for examples in range(1, 40):
        for size in range(2, 12):
            assert count_batches(examples, size) == len(batches(torch.arange(examples), size))


def test_noise_is_symmetric():
    labels = torch.zeros(90_000, dtype=torch.long)
    counts = flip_labels(labels, 0.5, 10, torch.Generator().manual_seed(0)).bincount(minlength=10)
    assert counts[0] == 45_000
    assert (counts[1:] - 5000).abs().max() < 300


def test_augmentation_crops_and_flips():
    x = torch.arange(2 * 3 * 6 * 5, dtype=torch.float32).reshape(2, 3, 6, 5) + 1
    rng, seen = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        y = crop_flip(x, rng, pad=1)
        assert y.shape == x.shape
        for flipped in (False, True):
            back = y[0].flip(-1) if flipped else y[0]
            for top in range(3):
                for left in range(3):
                    padded = torch.nn.functional.pad(x[0], (1, 1, 1, 1))[:, top : top + 6, left : left + 5]
                    if torch.equal(back, padded):
                        seen.add((flipped, top, left))
    assert len(seen) == 18
    assert torch.equal(crop_flip(x, torch.Generator().manual_seed(5)), crop_flip(x, torch.Generator().manual_seed(5)))


def test_errors():
    with pytest.raises(RecipeError, match="more than the 1200 training images"):
        load_splits(DataRecipe(train_size=1100), None, 0)
    with pytest.raises(RecipeError, match="--data-dir"):
        load_splits(DataRecipe(name="cifar100"), None, 0)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_data_dir_without_the_set(name, tmp_path):
    with pytest.raises(RecipeError, match="holds no"):
        load_splits(DataRecipe(name=name), tmp_path, 0)


def test_half_a_set(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(RecipeError, match="must hold"):
        load_splits(DataRecipe(name="cifar10"), tmp_path, 0)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_splits(DataRecipe(name="fashion-mnist"), tmp_path, 0)


def test_cifar10_in_the_binary_format(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (60, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(60) % 10
    for name, part in (("data_batch_1", rows[:25]), ("data_batch_2", rows[25:50]), ("test_batch", rows[50:])):
        (folder / f"{name}.bin").write_bytes(part.tobytes())
    splits = load_splits(DataRecipe(name="cifar10", validation_size=10), tmp_path, 0)
    assert whole(splits.train).x.shape == (40, 3, 32, 32)
    assert whole(splits.test).y.tolist() == [i % 10 for i in range(50, 60)]
    image = torch.from_numpy(rows[55, 1:].reshape(3, 32, 32)).float()
    found = whole(splits.test).x[5]
    for channel in range(3):  # an affine map of the bytes, channel by channel
        assert abs(np.corrcoef(found[channel].flatten(), image[channel].flatten())[0, 1] - 1) < 1e-6


@pytest.mark.parametrize(
    ("name", "shape", "test", "classes"),
    [
        ("fashion-mnist", (1, 14, 14), 10_000, 10),
        ("cifar10", (3, 16, 16), 10_000, 10),
        ("cifar100", (3, 16, 16), 10_000, 100),
    ],
)
def test_real_sets_in_their_official_formats(name, shape, test, classes, real_data):
    recipe = DataRecipe(name=name, train_size=500, validation_size=100, image_size=shape[-1])
    splits = load_splits(recipe, real_data(name), 0)
    assert whole(splits.train).x.shape == (500, *shape)
    assert (len(splits.test), splits.classes) == (test, classes)
    assert whole(splits.test).y.bincount().tolist() == [test // classes] * classes
    assert abs(whole(splits.test).x.mean()) < 0.1
