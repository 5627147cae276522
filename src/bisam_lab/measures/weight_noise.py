"""Gaussian noise on the weights, relative to their size: whether the minimum is flat, asked without a gradient."""

import torch
from torch import Tensor

from ..data.examples import stream
from ..registry.measures import NOISES
from .subject import Subject

__all__ = ["weight_noise"]

DRAWS = 5


def weight_noise(subject: Subject) -> dict[str, float]:
    """Return the accuracy under noise of each size, a mean over five draws.

    Every parameter of two dimensions or more gets independent noise with a standard deviation of the size times the
    root mean square of its entries. The draws are the same for all methods with one seed, but for that factor.
    """
    found = {}
    for size in NOISES:
        shares = []
        for draw in range(DRAWS):
            rng = stream(subject.seed, draw)
            with subject.changed() as params, torch.no_grad():
                for _, param in params:
                    if param.dim() > 1:
                        param.add_(_noise(param, size, rng))
                shares.append(subject.accuracy(subject.test))
        found[f"noise_{size:g}"] = sum(shares) / len(shares)
    return found


def _noise(param: Tensor, size: float, rng: torch.Generator) -> Tensor:
    draw = torch.randn(param.shape, generator=rng).to(param)
    return draw * (size * param.detach().square().mean().sqrt())
