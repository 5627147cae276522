"""CIFAR in its official formats."""

import numpy as np
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.datasets.sets.cifar import SUPERCLASSES
from bisam_lab.recipe import DataRecipe


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
    import pickle

    content = pickle.loads((real_data("cifar100") / "cifar-100-python" / "test").read_bytes(), encoding="latin1")
    assert {(f, SUPERCLASSES[f]) for f in content["fine_labels"]} == set(
        zip(content["fine_labels"], content["coarse_labels"], strict=True)
    )
