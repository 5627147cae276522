"""The losses as modules."""

import torch

from bisam import LowerBoundLoss, ZeroOneLoss
from bisam.functional import lower_bound_loss, zero_one_loss


def test_modules_are_the_functions():
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, -100])
    assert LowerBoundLoss("tanh", mu=3.0, alpha=0.2)(logits, target) == lower_bound_loss(
        logits, target, bound="tanh", mu=3.0, alpha=0.2
    )
    assert ZeroOneLoss()(logits, target) == zero_one_loss(logits, target)
    assert LowerBoundLoss("log").mu == 1.0
    assert LowerBoundLoss("tanh").mu == 10.0
    assert "LogBound" in repr(LowerBoundLoss())
    assert "reduction" in repr(ZeroOneLoss())
