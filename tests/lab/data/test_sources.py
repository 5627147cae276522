"""Memory or stream, and the size of images."""

from bisam_lab.data import load_splits, whole
from bisam_lab.data.stream import Streamed
from bisam_lab.recipe import DataRecipe
from tests.lab.painting import recipe


def test_small_sets_go_into_memory_and_large_ones_do_not(painted, monkeypatch):
    from bisam_lab.data import sources

    assert not isinstance(load_splits(recipe(painted), None, 0).train, Streamed)
    monkeypatch.setattr(sources, "_MEMORY", 60 * 3 * 16**2)
    assert isinstance(load_splits(recipe(painted), None, 0).train, Streamed)


def test_cifar_enlarged_batch_by_batch():
    splits = load_splits(DataRecipe(image_size=24), None, 0)
    assert splits.shape == (1, 24, 24)
    assert splits.train.examples.x.shape[-1] == 8
    assert whole(splits.test).x.shape == (597, 1, 24, 24)
    assert abs(whole(splits.train).x.mean()) < 1e-2
