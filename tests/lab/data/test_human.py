"""Labels that people gave."""

import numpy as np
import pytest
import torch

from bisam_lab.data import load_splits
from bisam_lab.datasets.registry import SETS
from bisam_lab.recipe import DataRecipe, RecipeError


@pytest.fixture
def people(real_data, tmp_path):
    """Both CIFARs and CIFAR-N in one folder."""
    for name, inner in (
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar100", "cifar-100-python"),
        ("cifar-n", "cifar-n"),
    ):
        (tmp_path / inner).symlink_to(real_data(name) / inner)
    return tmp_path


#: Share of wrong labels in per cent, as published with the sets.
PUBLISHED = [
    ("cifar10", "clean", 0.0),
    ("cifar10", "aggre", 9.03),
    ("cifar10", "rand1", 17.23),
    ("cifar10", "rand2", 18.12),
    ("cifar10", "rand3", 17.64),
    ("cifar10", "worse", 40.21),
    ("cifar100", "noisy", 40.20),
]


def test_the_rates_of_human_noise_are_the_published_ones(real_data):
    from bisam_lab.data.human import _load, human_labels

    root = real_data("cifar-n")
    for name, kind, rate in PUBLISHED:
        clean = torch.as_tensor(_load(root / SETS[name].human.path)["clean_label"])
        given = human_labels(f"cifar-n:{kind}", name, clean, root)
        assert len(given) == 50_000
        assert abs(100 * (given != clean).float().mean() - rate) < 0.025


@pytest.mark.parametrize(("name", "kind", "train"), [("cifar10", "worse", 9000), ("cifar100", "noisy", 45_000)])
def test_human_labels_follow_the_split(name, kind, train, people):
    clean, noisy = (load_splits(DataRecipe(name=name, **n), people, 7) for n in ({}, {"noise": f"cifar-n:{kind}"}))
    assert len(noisy.train) == train
    y, given = clean.train.labels, noisy.train.labels
    assert 0.38 < (y != given).float().mean() < 0.43
    assert torch.equal(clean.validation.labels, noisy.validation.labels)
    if name == "cifar10":  # people take cats for dogs; labels of other images would say every class as often
        cat, dog = 3, 5
        assert (given[y == cat] == dog).float().mean() > 0.1


def test_human_labels_of_other_images_are_refused(people):
    (people / "cifar-10-batches-bin").unlink()
    folder = people / "cifar-10-batches-bin"
    folder.mkdir()
    rows = np.zeros((40, 3073), np.uint8)
    rows[:, 0] = np.arange(40) % 10
    for name in ("data_batch_1", "test_batch"):
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    with pytest.raises(RecipeError, match=r"other images.*the 40 training images"):
        load_splits(DataRecipe(name="cifar10", noise="cifar-n:worse"), people, 0)


def test_files_of_human_labels_run_no_code(tmp_path):
    from bisam_lab.data.human import human_labels

    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    (tmp_path / "cifar-n").mkdir()
    path = tmp_path / "cifar-n" / "CIFAR-10_human.pt"
    with pytest.raises(RecipeError, match="bisam data fetch cifar-n"):
        human_labels("cifar-n:worse", "cifar10", torch.zeros(1), tmp_path)
    for content, words in (
        ({"clean_label": Trap()}, "cannot be read"),
        ([1], "not a dictionary"),
        ({"clean_label": [0]}, "not a file of CIFAR-N"),
    ):
        torch.save(content, path)
        with pytest.raises(RecipeError, match=words):
            human_labels("cifar-n:worse", "cifar10", torch.zeros(1).long(), tmp_path)
    with pytest.raises(RecipeError, match="of cifar10 there is cifar-n:clean"):
        human_labels("cifar-n:noisy", "cifar10", torch.zeros(1), tmp_path)
