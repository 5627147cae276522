"""Long-tailed training sets."""

import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.imbalance import long_tail
from bisam_lab.recipe import DataRecipe, RecipeError, load


def test_the_profile_is_that_of_cifar_lt():
    """5000 a class at 0.01, as the sets of Cui et al. have them, and each example once."""
    labels = torch.arange(10).repeat(5000)
    kept = long_tail(labels, 0.01, 10, torch.Generator().manual_seed(0))
    assert labels[kept].bincount().tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert len(kept) == 12406
    assert kept.unique().tolist() == kept.tolist(), "in their order"


def labels_of(labels, ratio):
    return labels[long_tail(labels, ratio, 2, torch.Generator())].bincount().tolist()


def test_a_class_keeps_one_example_and_a_ratio_of_one_keeps_all():
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert labels[long_tail(labels, 0.001, 3, torch.Generator())].bincount().tolist() == [2, 1, 1]
    assert long_tail(labels, 1.0, 3, torch.Generator()).tolist() == [0, 1, 2, 3, 4]
    hundred = torch.arange(2).repeat_interleave(100)
    assert labels_of(hundred, 0.29) == [100, 29], "no example is lost to floating point"
    assert len(long_tail(torch.zeros(4).long(), 0.1, 1, torch.Generator())) == 4


def test_only_training_has_the_tail_and_noise_comes_after_it():
    plain, tail = (load_splits(DataRecipe(train_size=1000, imbalance=ratio), None, 0) for ratio in (None, 0.05))
    before, after = whole(plain.train).y.bincount(), whole(tail.train).y.bincount()
    assert after.tolist() == [max(1, int(int(n) * 0.05 ** (i / 9))) for i, n in enumerate(before)]
    for part in ("validation", "test"):
        assert torch.equal(whole(getattr(plain, part)).y, whole(getattr(tail, part)).y)
    noisy = load_splits(DataRecipe(train_size=1000, imbalance=0.05, label_noise=0.25), None, 0)
    assert (whole(noisy.train).y != whole(tail.train).y).sum() == round(0.25 * len(tail.train))
    again = load_splits(DataRecipe(train_size=1000, imbalance=0.05), None, 0)
    assert torch.equal(whole(again.train).x, whole(tail.train).x)


@pytest.mark.parametrize("ratio", ["0", "-1", "1.5", "x"])
def test_a_ratio_that_cannot_be_is_refused(ratio):
    with pytest.raises(RecipeError, match=r"data\.imbalance"):
        load("digits", [f"data.imbalance={ratio}"])
