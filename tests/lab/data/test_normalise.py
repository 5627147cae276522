"""Mean and deviation of images."""

import torch

from bisam_lab.data.normalise import moments


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_statistics_are_those_of_all_pixels_whatever_the_batches():
    x = torch.randint(0, 256, (1010, 3, 9, 7), dtype=torch.uint8, generator=rng()) // torch.tensor([1, 2, 5]).reshape(
        3, 1, 1
    )
    for stored in (x, x / 255):
        mean, std = moments(stored)
        torch.testing.assert_close(mean, (x / 255).mean((0, 2, 3), keepdim=True))
        torch.testing.assert_close(std, (x / 255).std((0, 2, 3), keepdim=True))
