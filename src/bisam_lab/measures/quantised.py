"""Weights rounded to the nearest of a few whole numbers: int8 and int4, symmetric, a scale for each output channel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .subject import Subject, accuracy

__all__ = ["quantised", "rounded"]

BITS = (8, 4)


def quantised(subject: Subject) -> dict[str, float]:
    """Return loss and accuracy on the test set with rounded weights: every parameter of two dimensions or more."""
    found = {}
    for bits in BITS:
        with subject.changed() as params, torch.no_grad():
            for _, param in params:
                if param.dim() > 1:
                    param.copy_(rounded(param, bits))
            logits, labels = subject.logits(subject.test), subject.test.labels
        found[f"loss_int{bits}"] = float(F.cross_entropy(logits, labels))
        found[f"accuracy_int{bits}"] = accuracy(logits, labels)
    return found


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return a weight (out, ...) rounded to whole multiples of a scale for each output channel.

    The multiples go from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1; the largest entry of a channel is one of the ends.
    A channel with an entry that is no finite number has no scale: it becomes NaN.
    """
    most = 2 ** (bits - 1) - 1
    exact = weight.detach().float()
    scale = exact.flatten(1).abs().amax(1) / most
    known = scale.isfinite()
    points = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    scaled = torch.where((scale > 0) & known, scale, 1.0)  # a channel of zeros stays one
    found = torch.fake_quantize_per_channel_affine(exact, scaled, points, 0, -most, most)
    return torch.where(known.view(-1, *[1] * (weight.dim() - 1)), found, torch.nan).to(weight)
