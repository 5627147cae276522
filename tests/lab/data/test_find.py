"""Readers of the user's own, by import path."""

import sys

import pytest
import torch
from typer.testing import CliRunner

from bisam_lab.cli.data import data
from bisam_lab.data import load_splits, whole
from bisam_lab.data.find import find
from bisam_lab.recipe import DataRecipe, RecipeError, load

READERS = """
import torch
from bisam_lab.datasets import Images, Sample, Texts


def blobs(data_dir):
    x, y = torch.arange(50.0).reshape(50, 1, 1, 1).expand(50, 1, 8, 8) / 50, torch.arange(50) % 5
    return Images(train=(x[:40], y[:40]), test=(x[40:], y[40:]))


def folder(data_dir):
    return Images(*(torch.load(data_dir / f"{part}.pt") for part in ("train", "test")))


def films(data_dir):
    samples = [Sample(("a fine film",), 1), Sample(("a dull film",), 0)] * 10
    return Texts(samples, samples[:4], ("bad", "good"))


def wrong(data_dir):
    return [1]


def broken(data_dir):
    raise KeyError("images")


def nothing():
    pass


def flat(data_dir):
    return Images(train=(torch.zeros(4, 3), torch.zeros(4).long()), test=(torch.zeros(4, 3), torch.zeros(4).long()))


number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with readers in it."""
    (tmp_path / "readers.py").write_text(READERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if "readers" in name:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["readers.py:blobs", "readers:blobs"])
def test_a_reader_in_a_file_and_in_a_package(name):
    splits = load_splits(DataRecipe(name=name, label_noise=0.5, noise="asymmetric"), None, 0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 10)
    assert (splits.classes, splits.shape) == (5, (1, 8, 8))
    assert whole(splits.test).y.tolist() == [k % 5 for k in range(40, 50)]
    assert whole(splits.train).x.mean().abs() < 1e-5


def test_a_reader_gets_the_data_dir(here):
    for part, count in (("train", 20), ("test", 4)):
        (here / "mine").mkdir(exist_ok=True)
        torch.save((torch.zeros(count, 3, 4, 4, dtype=torch.uint8), torch.arange(count) % 2), here / f"mine/{part}.pt")
    assert load_splits(DataRecipe(name="readers.py:folder"), here / "mine", 0).shape == (3, 4, 4)
    with pytest.raises(RecipeError, match=r"folder raised FileNotFoundError at .*readers\.py:12"):
        load_splits(DataRecipe(name="readers.py:folder"), None, 0)


def test_a_reader_of_texts():
    pytest.importorskip("transformers")
    splits = load_splits(DataRecipe(name="readers.py:films"), None, 0)
    assert (splits.classes, len(splits.test)) == (2, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("readers.py:blob", "has no blob: did you mean blobs?"),
        ("nowhere.py:blobs", "there is no file"),
        ("nowhere:blobs", "there is no module nowhere"),
        ("readers.py:wrong", "wrong returned a list; it must return Images, Pictures or Texts"),
        ("readers.py:broken", r"broken raised KeyError at .*readers\.py:25: 'images'"),
        ("readers.py:nothing", "nothing must take one argument, the folder of --data-dir"),
        ("readers.py:flat", r"the images must be \(N, C, H, W\) in uint8 or floating point, not \(4, 3\)"),
        ("readers.py:number", "number is a int"),
    ],
)
def test_what_is_wrong_with_a_reader_is_one_sentence(name, words):
    with pytest.raises(RecipeError, match=rf"data\.name='{name}': .*{words}"):
        load_splits(DataRecipe(name=name), None, 0)


@pytest.mark.parametrize(("name", "hint"), [("folders:x", "folder:x"), ("txt:x", "text:x"), ("floder:x", "folder:x")])
def test_a_misspelt_folder_is_no_package(name, hint):
    with pytest.raises(RecipeError, match=rf"did you mean {hint}\?"):
        load("own", [f"data.name={name}"])


def test_a_file_may_have_any_name(here):
    (here / "folder.py").write_text(READERS)
    assert load_splits(DataRecipe(name="folder.py:blobs"), None, 0).classes == 5


def test_labels_for_another_set_are_no_data_set():
    with pytest.raises(RecipeError, match=r"cifar-n has no examples.*data\.noise"):
        load("own", ["data.name=cifar-n"])
    assert find("cifar-n").archives()


@pytest.mark.parametrize("verb", ["verify", "prepare"])
def test_the_command_reads_it(verb):
    found = CliRunner().invoke(data, [verb, "readers.py:blobs"])
    assert found.exit_code == 0
    assert "40 + 10 images of 5 classes" in found.stdout


def test_the_command_says_that_a_reader_is_broken():
    found = CliRunner().invoke(data, ["verify", "readers.py:broken"])
    assert found.exit_code == 1
    assert "broken  readers.py:broken: data.name='readers.py:broken': broken raised KeyError" in found.stdout
    found = CliRunner().invoke(data, ["fetch", "readers.py:blobs"])
    assert "has no official files to fetch" in str(found.exception)
