"""CIFAR in its official formats."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

import bisam_lab
from bisam_lab.data import load_splits, read, whole
from bisam_lab.data.verify import verify
from bisam_lab.datasets import cifar_batches
from bisam_lab.datasets.sets import cifar
from bisam_lab.datasets.sets.cifar import SUPERCLASSES
from bisam_lab.parallel.checks import check_recipe
from bisam_lab.recipe import DataRecipe, RecipeError, load
from bisam_lab.study.folder import Study

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


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


def test_superclasses_are_those_of_the_official_file(real_data):
    content = pickle.loads((real_data("cifar100") / "cifar-100-python" / "test").read_bytes(), encoding="latin1")
    assert {(f, SUPERCLASSES[f]) for f in content["fine_labels"]} == set(
        zip(content["fine_labels"], content["coarse_labels"], strict=True)
    )


def rows(count, seed=0, first=0):
    found = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    found[:, 0] = (np.arange(count) + first) % 10
    return found


def written(folder, rows, names=(b"a.png",), key=b"labels", **content):
    """A file of the Python version, as Python 3 writes one of protocol 2; returns its MD5."""
    folder.parent.mkdir(exist_ok=True)
    content = {b"data": rows[:, 1:], key: rows[:, 0].tolist(), b"filenames": [*names], **content}
    folder.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(folder.read_bytes()).hexdigest()


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A small CIFAR-10 in both layouts, which passes for the official one: (folder, its rows by file)."""
    binary, python = tmp_path / "bin", tmp_path / "py"
    sizes = {f"data_batch_{k}": 10 for k in range(1, 6)} | {"test_batch": 20}
    content = {name: rows(size, seed) for seed, (name, size) in enumerate(sizes.items())}
    (binary / "cifar-10-batches-bin").mkdir(parents=True)
    python.mkdir()
    listed = []
    for name, part in content.items():
        digest = hashlib.md5(part.tobytes()).hexdigest()
        monkeypatch.setitem(cifar_batches.BINARY, f"{name}.bin", digest)
        monkeypatch.setitem(cifar_batches.ROWS, name, digest)
        (binary / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(part.tobytes())
        listed.append([name, written(python / "cifar-10-batches-py" / name, part)])
    words = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    meta = python / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({b"label_names": words}, protocol=2))
    monkeypatch.setattr(CIFAR10, "train_list", listed[:5])
    monkeypatch.setattr(CIFAR10, "test_list", listed[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(meta.read_bytes()).hexdigest()})
    return tmp_path, content


def states(data_dir):
    return {row.path.name: (row.state, row.note) for row in verify("cifar10", data_dir)}


def note(data_dir):
    read._read.cache_clear()
    return load_splits(DataRecipe(name="cifar10", validation_size=10), data_dir, 0).note


def test_both_official_layouts_hold_the_same_images_and_nothing_is_said(official):
    root, content = official
    binary, python = (load_splits(DataRecipe(name="cifar10", validation_size=10), root / k, 0) for k in ("bin", "py"))
    assert torch.equal(whole(binary.train).x, whole(python.train).x)
    assert python.test.labels.tolist() == content["test_batch"][:, 0].tolist()
    for layout in ("bin", "py"):
        assert set(states(root / layout).values()) == {("ok", "")}
        assert note(root / layout) == ""


def test_a_copy_without_names_is_read_and_said_to_hold_the_official_images(official):
    root, content = official
    folder = root / "py" / "cifar-10-batches-py"
    for name, part in content.items():
        written(folder / name, part, names=())
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}, protocol=4))
    found = states(root / "py")
    digest = hashlib.md5((folder / "test_batch").read_bytes()).hexdigest()
    told = f"the 20 official images and labels, but MD5 {digest} is not the official one"
    assert found["test_batch"] == ("ok", f"{told}: the images' names are missing in it")
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["batches.meta"][1].startswith("the official names of classes, but MD5")
    assert note(root / "py") == (
        f"{folder} holds the 70 official images and labels; the bytes of its files are not the official ones"
    )


def test_other_images_or_labels_are_told_apart(official):
    root, content = official
    folder = root / "py" / "cifar-10-batches-py"
    content["data_batch_2"][3, 0] += 1  # a label
    content["test_batch"][0, 9] ^= 1  # a pixel
    for name in ("data_batch_2", "test_batch"):
        written(folder / name, content[name])
        (root / "bin" / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(content[name].tobytes())
    found = states(root / "py")
    assert {name for name, (state, _) in found.items() if state == "broken"} == {"data_batch_2", "test_batch"}
    assert "its images or labels are not the official ones" in found["test_batch"][1]
    assert note(root / "py").startswith("data_batch_2, test_batch in ")
    assert "do not hold the official images and labels: bisam data verify" in note(root / "py")
    assert "data_batch_2.bin, test_batch.bin in " in note(root / "bin")
    (root / "bin" / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    content["data_batch_2"][3, 0] -= 1
    content["test_batch"][0, 9] ^= 1
    for name in ("data_batch_2", "test_batch"):
        (root / "bin" / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(content[name].tobytes())
    assert note(root / "bin").endswith("lacks 1 of 6 official files, such as data_batch_4.bin")


def test_a_list_of_lossy_images_that_is_about_another_copy(official, monkeypatch):
    root, content = official
    folder = root / "bin" / "cifar-10-batches-bin"
    monkeypatch.setattr(cifar, "_BATCH", 20)
    (folder / "lossy_indices.json").write_text('{"test_batch.bin": [3, 5]}')
    assert states(root / "bin")["test_batch.bin"] == ("ok", "lossy_indices.json beside it is about another copy")
    content["test_batch"][3, 9] ^= 1
    (folder / "test_batch.bin").write_bytes(content["test_batch"].tobytes())
    assert states(root / "bin")["test_batch.bin"] == (
        "broken",
        "not the official file: 2 images differ, by lossy_indices.json",
    )


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda part: pickle.dumps({b"data": Evil()}), "it would call builtins.print"),
        (lambda part: pickle.dumps([1]), "it holds a list"),
        (lambda part: pickle.dumps({b"data": part[:, 1:]}), "it lacks 'labels'"),
        (lambda part: pickle.dumps({b"data": part[:, 2:], b"labels": [0] * len(part)}), "data (20, 3071) in uint8"),
        (lambda part: pickle.dumps({b"data": part[:, 1:], b"labels": [300] * len(part)}), "no file of CIFAR"),
        (lambda part: pickle.dumps({b"data": part[:, 1:], b"labels": [0] * len(part)})[:-900], "is cut or no file"),
        (lambda part: b"", "is cut or no file"),
    ],
)
def test_files_that_are_none_of_cifar(content, words, official, capsys):
    root, parts = official
    path = root / "py" / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(content(parts["test_batch"]))
    state, said = states(root / "py")["test_batch"]
    assert state == "broken"
    assert words in f"{path} {said}"
    with pytest.raises(RecipeError) as caught:
        note(root / "py")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "corrupted" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_the_official_cifar100_has_the_rows_that_are_known(real_data):
    data_dir = real_data("cifar100")
    train, test = cifar._pickled("CIFAR100", data_dir)
    assert train[0].official
    assert test[0].official
    assert train[0].same_images
    assert test[0].same_images
    found = cifar._check_meta(data_dir / "cifar-100-python" / "meta", "0" * 32)
    assert found.state == "ok"


def test_a_missing_file_is_named(official):
    root, _ = official
    path = root / "py" / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    assert states(root / "py")["data_batch_3"][0] == "missing"
    with pytest.raises(RecipeError, match=rf"{path} is missing.*bisam data verify"):
        note(root / "py")


def test_a_run_and_a_study_say_it_once(official, tmp_path, capsys, monkeypatch):
    root, content = official
    for name, part in content.items():
        written(root / "py" / "cifar-10-batches-py" / name, part, names=())
    monkeypatch.chdir(tmp_path)
    small = ["data.validation_size=10", "model.name=resnet-8", "model.options.width=2", "train.epochs=1"]
    said = "holds the 70 official images and labels"
    read._read.cache_clear()
    monkeypatch.setattr(sys, "argv", ["bisam", "train", "cifar10", *small, "--data-dir", str(root / "py")])
    with pytest.raises(SystemExit):
        bisam_lab.main()
    assert " ".join(capsys.readouterr().out.split()).count(said) == 1
    recipe = load("cifar10", [*small, "methods=[sgd, sam]", "seeds=1"])
    study = Study(tmp_path / "study", recipe, root / "py")
    assert check_recipe(study.variant(""), root / "py", 0).count(said) == 1
