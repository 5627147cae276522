"""Augmentation by its distribution."""

import pytest
import torch

from bisam_lab.data.augment import AUGMENT, augmentation, crop_flip, cutout, draw_boxes, flip, resized_crop_flip


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


def test_augmentation_crops_and_flips():
    x = torch.arange(2 * 3 * 6 * 5, dtype=torch.float32).reshape(2, 3, 6, 5) + 1
    rng, seen = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        y = crop_flip(x, rng, pad=1)
        assert y.shape == x.shape
        for flipped in (False, True):
            back = y[0].flip(-1) if flipped else y[0]
            for top in range(3):
                for left in range(3):
                    padded = torch.nn.functional.pad(x[0], (1, 1, 1, 1))[:, top : top + 6, left : left + 5]
                    if torch.equal(back, padded):
                        seen.add((flipped, top, left))
    assert len(seen) == 18
    assert torch.equal(crop_flip(x, torch.Generator().manual_seed(5)), crop_flip(x, torch.Generator().manual_seed(5)))


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


@pytest.mark.parametrize("name", ["crop-flip", "crop-flip-cutout"])
def test_a_crop_finds_the_border_outside_and_the_same_picture_inside(name):
    x, border = torch.rand(50, 3, 32, 32) + 1, torch.tensor([-1.0, -2.0, -3.0]).reshape(1, 3, 1, 1)
    zeros, bordered = (augmentation(name, given)(x, rng(4)) for given in (None, border))
    outside = zeros == 0
    if name == "crop-flip":
        assert torch.equal(bordered, torch.where(outside, border, zeros))
        assert 0.05 < outside.float().mean() < 0.25
    else:  # a cut-out square is the mean colour all the same
        assert torch.equal(zeros[~outside], bordered[~outside])
        assert set(bordered[:, 1][outside[:, 1]].tolist()) == {0.0, -2.0}


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
