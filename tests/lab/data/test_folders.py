"""Folders of pictures, decoded whole or streamed: the same pictures either way."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bisam_lab.data import load_splits, whole
from bisam_lab.data.stream import Streamed
from bisam_lab.datasets.folders import read_folder
from bisam_lab.datasets.pictures import decode
from bisam_lab.recipe import DataRecipe, RecipeError

CLASSES = ("cat", "dog", "owl")


def paint(path, seed, size=(24, 20)):
    """Write a smooth picture of its own, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Three classes of twenty, each picture of another size, in three formats."""
    root = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(CLASSES):
        for k in range(20):
            suffix = ("jpg", "PNG", "JPEG")[k % 3]
            paint(root / name / f"{k:02}.{suffix}", 100 * label + k, (20 + k, 44 - k))
    return root


@pytest.fixture
def own(painted, tmp_path):
    """A copy, to be spoilt."""
    return shutil.copytree(painted, tmp_path / "pictures")


def recipe(root, **fields):
    return DataRecipe(name=f"folder:{root}", **{"image_size": 16, **fields})


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


def test_pictures_of_different_sizes_are_read_at_64_pixels_and_equal_ones_as_they_are(painted, tmp_path):
    assert load_splits(recipe(painted, image_size=None), None, 0).shape == (3, 64, 64)
    for name in ("a", "b"):
        for k in range(4):
            paint(tmp_path / name / f"{k}.png", k, (20, 24))
    assert load_splits(recipe(tmp_path, image_size=None), None, 0).shape == (3, 20, 20)


def test_decoding_takes_the_middle_square(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 17, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    assert np.array_equal(decode(bytes(path), 10), pixels[:, 3:13].transpose(2, 0, 1))
    top_left = decode(bytes(path), 5, (0.5, 5 / 17, 0.0, 0.0))
    assert np.array_equal(top_left, pixels[:5, :5].transpose(2, 0, 1))


def test_a_large_jpeg_is_decoded_coarsely_and_nearly_alike(tmp_path):
    path = paint(tmp_path / "a.jpg", 0, (640, 480))
    with Image.open(path) as image:
        exact = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, box=(80, 0, 560, 480)))
    assert np.abs(decode(bytes(path), 32).astype(int) - exact.transpose(2, 0, 1)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_pictures_in_other_modes_become_rgb(mode, tmp_path):
    Image.new("RGBA", (8, 8), (200, 100, 0, 128)).convert(mode).save(tmp_path / "a.png")
    assert decode(bytes(tmp_path / "a.png"), 8).shape == (3, 8, 8)


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


def both(painted, **fields):
    return [load_splits(recipe(painted, loading=loading, **fields), None, 0) for loading in ("memory", "stream")]


def equal(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


@pytest.mark.parametrize("augment", ["none", "crop-flip-cutout"])
def test_a_stream_is_what_memory_is(painted, augment):
    memory, streamed = both(painted, augment=augment, workers=0, label_noise=0.3)
    assert isinstance(streamed.train, Streamed)
    equal(memory.train.shuffled(8, 5, 2), streamed.train.shuffled(8, 5, 2))
    equal(list(memory.train.shuffled(8, 5, 2))[3:], memory.train.shuffled(8, 5, 2, start=3))
    equal(memory.validation.in_order(4), streamed.validation.in_order(4))
    equal(memory.test.in_order(), streamed.test.in_order())
    assert memory.shape == streamed.shape


@pytest.mark.parametrize("augment", ["none", "resized-crop-flip"])
def test_workers_change_nothing_and_start_drops_batches(painted, augment):
    alone, two = (load_splits(recipe(painted, loading="stream", augment=augment, workers=w), None, 0) for w in (0, 2))
    batches = list(alone.train.shuffled(8, 5, 2))
    torch.manual_seed(3)
    equal(batches, two.train.shuffled(8, 5, 2))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))  # dropout in between is the same, streamed or not
    equal(batches[2:], alone.train.shuffled(8, 5, 2, start=2))
    assert list(alone.train.shuffled(8, 5, 2, start=len(batches))) == []
    assert not torch.equal(batches[0].x, next(alone.train.shuffled(8, 5, 3)).x)


def test_start_decodes_nothing_that_lies_before(painted, monkeypatch):
    from bisam_lab.data import stream

    splits, seen = load_splits(recipe(painted, loading="stream", workers=0), None, 0), []
    monkeypatch.setattr(stream, "decode", lambda *args: seen.append(args) or decode(*args))
    list(splits.train.shuffled(8, 5, 2, start=4))
    assert len(seen) == len(splits.train) - 4 * 8


def test_small_sets_go_into_memory_and_large_ones_do_not(painted, monkeypatch):
    from bisam_lab.data import sources

    assert not isinstance(load_splits(recipe(painted), None, 0).train, Streamed)
    monkeypatch.setattr(sources, "_MEMORY", 60 * 3 * 16**2)
    assert isinstance(load_splits(recipe(painted), None, 0).train, Streamed)


def test_a_slow_reading_is_told_of(painted, monkeypatch, capsys):
    from bisam_lab.data import decoding

    monkeypatch.setattr(decoding, "_PATIENCE", -1.0)
    load_splits(recipe(painted), None, 0)
    assert f"reading folder:{painted}: 44 of 44 pictures" in capsys.readouterr().err


def test_cifar_enlarged_batch_by_batch():
    splits = load_splits(DataRecipe(image_size=24), None, 0)
    assert splits.shape == (1, 24, 24)
    assert splits.train.examples.x.shape[-1] == 8
    assert whole(splits.test).x.shape == (597, 1, 24, 24)
    assert abs(whole(splits.train).x.mean()) < 1e-2
