"""Sets of images in their official formats."""

import pytest

from bisam_lab.data import load_splits, whole
from bisam_lab.recipe import DataRecipe, RecipeError


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_data_dir_without_the_set(name, tmp_path):
    with pytest.raises(RecipeError, match="holds no"):
        load_splits(DataRecipe(name=name), tmp_path, 0)


def test_half_a_set(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(RecipeError, match="must hold"):
        load_splits(DataRecipe(name="cifar10"), tmp_path, 0)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    (tmp_path / "train_32x32.mat").write_bytes(b"another copy")
    (tmp_path / "flowers-102" / "jpg").mkdir(parents=True)
    for name in ("fashion-mnist", "svhn", "flowers"):
        with pytest.raises(RecipeError, match=f"cannot be read: files are missing.*bisam data verify {name}") as caught:
            load_splits(DataRecipe(name=name), tmp_path, 0)
        assert "corrupted" not in str(caught.value)
        assert "download=True" not in str(caught.value)


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
