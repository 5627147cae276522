"""Wrong labels by their shares."""

import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.noise import flip_labels, flip_to_partner, partner_classes
from bisam_lab.datasets.registry import SETS
from bisam_lab.datasets.sets.cifar import SUPERCLASSES
from bisam_lab.recipe import DataRecipe


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def partners(name):
    return partner_classes(SETS[name].partners, SETS[name].counts[2])


def test_noise_is_symmetric():
    labels = torch.zeros(90_000, dtype=torch.long)
    counts = flip_labels(labels, 0.5, 10, torch.Generator().manual_seed(0)).bincount(minlength=10)
    assert counts[0] == 45_000
    assert (counts[1:] - 5000).abs().max() < 300


def test_cifar10s_asymmetric_pairs():
    airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck = range(10)
    pairs = {truck: automobile, bird: airplane, deer: horse, cat: dog, dog: cat}
    assert partners("cifar10").tolist() == [pairs.get(k, k) for k in range(10)]
    assert {airplane, automobile, frog, horse, ship}.isdisjoint(pairs)
    labels = torch.arange(10).repeat(1000)
    noisy = flip_to_partner(labels, 0.4, partners("cifar10"), rng())
    for k in range(10):
        assert (noisy[labels == k] == pairs.get(k, -1)).sum() == (400 if k in pairs else 0)
        assert (noisy[labels == k] == k).sum() == (600 if k in pairs else 1000)
    assert (noisy != labels).float().mean() == 0.2


def test_cifar100s_partners_go_round_in_their_superclass():
    partner, group = partners("cifar100"), torch.tensor(SUPERCLASSES)
    assert torch.equal(group[partner], group)
    assert sorted(partner.tolist()) == list(range(100))
    place = torch.arange(100)
    for _ in range(5):
        place = partner[place]
    assert torch.equal(place, torch.arange(100))
    assert not (partner == torch.arange(100)).any()


def test_elsewhere_a_class_is_taken_for_the_next():
    splits = load_splits(DataRecipe(noise="asymmetric", label_noise=0.2), None, 0)
    clean = load_splits(DataRecipe(), None, 0)
    y, noisy = whole(clean.train).y, whole(splits.train).y
    assert set(((noisy - y) % 10).tolist()) == {0, 1}
    assert abs((noisy != y).float().mean() - 0.2) < 0.005
    assert torch.equal(whole(splits.validation).y, whole(clean.validation).y)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"noise": "asymetric"}, "did you mean asymmetric"),
        ({"noise": "cifar-n:worse"}, "about cifar10 and cifar100, not about digits"),
        ({"name": "cifar10", "noise": "cifar-n:worse", "label_noise": 0.2}, "share of its own"),
    ],
)
def test_noise_that_cannot_be(fields, words):
    with pytest.raises(ValueError, match=words):
        DataRecipe(**fields)
