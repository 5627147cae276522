"""Random numbers depend on the place where they are drawn, and on nothing else."""

import torch

from bisam_lab.data.examples import stream


def test_the_place_alone_decides_what_is_random():
    draws = [torch.rand(3, generator=stream(*place)).tolist() for place in ((0, 1), (0, 1, 0), (1, 0), (0, 1))]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3
