"""Augmentation by its distribution, and wrong labels by their shares."""

import numpy as np
import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.augment import AUGMENT, crop_flip, cutout, draw_boxes, flip, resized_crop_flip
from bisam_lab.data.noise import flip_to_partner, partner_classes
from bisam_lab.data.normalise import moments
from bisam_lab.datasets.registry import SETS
from bisam_lab.datasets.sets.cifar import SUPERCLASSES
from bisam_lab.recipe import DataRecipe, RecipeError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", [name for name in AUGMENT if name != "none"])
def test_every_augmentation_is_its_generators_alone_and_keeps_the_shape(name):
    x = torch.rand(6, 3, 32, 32)
    before = x.clone()
    first, same, other = (AUGMENT[name](x, rng(seed)) for seed in (1, 1, 2))
    assert first.shape == x.shape
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)


def test_flip_mirrors_half():
    x = torch.arange(5.0).expand(4000, 1, 1, 5)
    y = flip(x, rng())
    mirrored = (y == x.flip(-1)).all(-1).flatten()
    assert torch.equal(mirrored, ~(y == x).all(-1).flatten())
    assert abs(mirrored.float().mean() - 0.5) < 0.03


@pytest.mark.parametrize(("size", "side"), [(32, 16), (8, 4), (64, 32)])
def test_cutout_empties_a_square_around_any_pixel_in_half_of_the_images(size, side):
    x = torch.ones(4000, 2, size, size)
    empty = cutout(x, rng()) == 0
    assert torch.equal(empty[:, 0], empty[:, 1])
    cut = empty[:, 0].flatten(1).any(1)
    assert abs(cut.float().mean() - 0.5) < 0.03
    heights, widths = (empty[cut, 0].any(dim).sum(1) for dim in (2, 1))
    assert torch.equal(empty[cut, 0].sum((1, 2)), heights * widths)
    assert heights.max() == widths.max() == side
    assert heights.min() == widths.min() == side // 2  # a centre in the corner
    inside = (heights == side).float().mean()
    assert abs(inside - (size - side + 1) / size) < 0.03


def test_crop_pads_in_proportion_above_32_pixels():
    x = torch.ones(2000, 1, 64, 64)
    assert (crop_flip(x, rng())[:, 0, :, 32] == 0).sum(1).max() == 8


def test_boxes_have_the_area_and_the_shape_of_the_paper():
    height, width, top, left = draw_boxes(20_000, rng()).unbind(1)
    area, stretch = height * width, width / height
    assert 0.0799 < area.min() < 0.09
    assert area.max() <= 1
    assert abs((area < 0.54).float().mean() - 0.5) < 0.02  # the middle of .08 to 1
    assert abs((stretch < 1).float().mean() - 0.5) < 0.02
    assert 0.7499 < stretch.min() < stretch.max() < 1.3334
    assert abs(top.mean() - 0.5) < 0.01
    assert abs(left.mean() - 0.5) < 0.01


def test_resized_crop_is_the_part_that_its_box_says():
    size = 16
    ramp = torch.arange(size) + 0.5
    x = torch.stack([ramp[:, None].expand(size, size), ramp[None].expand(size, size)]).expand(200, 2, size, size)
    y = resized_crop_flip(x, rng(3))
    height, width, top, left = draw_boxes(200, rng(3)).unbind(1)
    middle = size // 2
    rows = (y[:, 0, middle - 1] + y[:, 0, middle])[:, middle] / 2
    columns = (y[:, 1, middle, middle - 1] + y[:, 1, middle, middle]) / 2
    torch.testing.assert_close(rows, size * (top * (1 - height) + height / 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(columns, size * (left * (1 - width) + width / 2), atol=1e-3, rtol=0)
    assert abs((y[:, 1, middle, 0] > y[:, 1, middle, -1]).float().mean() - 0.5) < 0.1


def partners(name):
    return partner_classes(SETS[name].partners, SETS[name].counts[2])


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


def test_superclasses_are_those_of_the_official_file(real_data):
    import pickle

    content = pickle.loads((real_data("cifar100") / "cifar-100-python" / "test").read_bytes(), encoding="latin1")
    assert {(f, SUPERCLASSES[f]) for f in content["fine_labels"]} == set(
        zip(content["fine_labels"], content["coarse_labels"], strict=True)
    )


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


def test_statistics_are_those_of_all_pixels_whatever_the_batches():
    x = torch.randint(0, 256, (1010, 3, 9, 7), dtype=torch.uint8, generator=rng()) // torch.tensor([1, 2, 5]).reshape(
        3, 1, 1
    )
    for stored in (x, x / 255):
        mean, std = moments(stored)
        torch.testing.assert_close(mean, (x / 255).mean((0, 2, 3), keepdim=True))
        torch.testing.assert_close(std, (x / 255).std((0, 2, 3), keepdim=True))


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
