"""Folders of pictures."""

import shutil

import pytest

from bisam_lab.data import load_splits, whole
from bisam_lab.datasets.folders import read_folder
from bisam_lab.recipe import RecipeError
from tests.lab.painting import CLASSES, paint, recipe


@pytest.fixture
def own(painted, tmp_path):
    """A copy, to be spoilt."""
    return shutil.copytree(painted, tmp_path / "pictures")


def test_pictures_of_different_sizes_are_read_at_64_pixels_and_equal_ones_as_they_are(painted, tmp_path):
    assert load_splits(recipe(painted, image_size=None), None, 0).shape == (3, 64, 64)
    for name in ("a", "b"):
        for k in range(4):
            paint(tmp_path / name / f"{k}.png", k, (20, 24))
    assert load_splits(recipe(tmp_path, image_size=None), None, 0).shape == (3, 20, 20)


def test_train_and_test_folders(own, tmp_path):
    root = tmp_path / "official"
    shutil.copytree(own, root / "train")
    for name in CLASSES[:2]:
        for k in range(3):
            paint(root / "val" / name / f"{k}.png", k)
    (root / "train" / "cat" / ".hidden").touch()
    (root / "train" / "cat" / "Thumbs.db").touch()
    found = read_folder(root)
    assert (len(found.train), found.test.y.bincount().tolist()) == (60, [3, 3])
    paint(root / "test" / "dog" / "0.png", 0)
    assert read_folder(root).test.y.tolist() == [1]
    paint(root / "test" / "elk" / "0.png", 0)
    with pytest.raises(RecipeError, match="elk is a class that"):
        read_folder(root)


def spoil(own, how):
    if how == "truncated":
        path = own / "dog" / "03.PNG"
        shutil.copy(own / "dog" / "04.PNG", path)
        path.write_bytes(path.read_bytes()[:60])
    if how == "text":
        (own / "owl" / "00.jpg").write_text("no picture")
    if how == "notes":
        (own / "owl" / "notes.txt").write_text("no picture")
    if how == "one class":
        shutil.rmtree(own / "owl")
        shutil.rmtree(own / "dog")
    if how == "empty class":
        (own / "yak").mkdir()
    if how == "small class":
        paint(own / "yak" / "0.png", 0)


@pytest.mark.parametrize("loading", ["memory", "stream"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", r"03\.PNG is broken or no picture"),
        ("text", r"00\.jpg is broken or no picture"),
        ("notes", r"notes\.txt is no picture"),
        ("one class", "needs two classes"),
        ("empty class", "yak holds no picture"),
        ("small class", "class yak has 1 pictures"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(own, how, words, loading):
    if how == "truncated":
        shutil.copy(own / "dog" / "01.PNG", own / "dog" / "04.PNG")
    spoil(own, how)
    with pytest.raises(RecipeError, match=words):
        splits = load_splits(recipe(own, loading=loading, workers=2), None, 0)
        for part in (splits.train, splits.validation, splits.test):
            whole(part)


def test_a_missing_folder_and_one_under_the_data_dir(own, tmp_path):
    with pytest.raises(RecipeError, match="no folder"):
        load_splits(recipe(tmp_path / "nowhere"), None, 0)
    assert len(load_splits(recipe("pictures"), tmp_path, 0).test) == 12
