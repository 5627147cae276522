"""Micro-batches inside the pass: the step of every method is that of one large batch."""

import pytest
import torch
from torch import nn

from bisam import LowerBoundLoss
from bisam.loops import micro_batches
from bisam.testing import batches
from tests.makers import MAKERS, UNDER_EACH_ASCENT, each_ascent

THIRD = {"gsam", "wsam", "looksam", "aesam", "stablesam"}


def train(case, parts, steps=6):
    """The weights after some steps whose batches come in ``parts``; no layer mixes samples."""
    name, foreign = case
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 4)).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    choices = {"ascent": LowerBoundLoss(), "third_pass": name in THIRD} if foreign else {}
    opt = MAKERS[name](base, model=model, rho=0.5, **choices)
    for x, y in batches(steps):
        for objective in opt.passes():
            for xs, ys, part in micro_batches(parts, x, y):
                (part * objective(model(xs), ys)).backward()
        opt.step()
        opt.zero_grad()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("case", UNDER_EACH_ASCENT, ids=each_ascent)
def test_micro_batches_inside_the_pass_are_one_large_batch(case):
    torch.testing.assert_close(train(case, 3), train(case, 1), rtol=1e-9, atol=1e-11)  # 16 samples: parts of two sizes
