"""Sets over some of the parameters, or over weights drawn at random."""

import pytest
import torch
from torch import nn

from bisam import ESAM, SAMON
from bisam.geometry import NORMALISATION
from bisam.testing import Net
from tests.steps import X, Y, sgd


def test_random_supports_are_drawn_from_seed_and_step():
    model = Net()

    def support(seed, step):
        opt = ESAM(sgd(model, lr=0.0), model=model, rho=0.5, beta=0.5, seed=seed)
        for group in opt.param_groups:
            group["sharpness_steps"] = step
        before = model.middle.weight.detach().clone()
        for objective in opt.passes():
            if not objective.is_ascent:
                moved = model.middle.weight.detach() != before
            objective(model(X), Y).backward()
        return moved

    first = support(0, 3)
    assert 0.2 < first.double().mean() < 0.8
    assert torch.equal(first, support(0, 3))  # a resumed run, or another micro-batch
    assert not torch.equal(first, support(0, 4))
    assert not torch.equal(first, support(1, 3))


def test_sam_on_goes_by_type_not_by_name():
    class MyNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.scale * x / x.norm(dim=-1, keepdim=True)

    net = nn.ModuleDict({"normal": nn.Linear(6, 4), "g": nn.LayerNorm(4), "own": MyNorm(), "out": nn.Linear(4, 3)})

    def forward(x):
        return net["out"](net["own"](net["g"](net["normal"](x))))

    def moved(**choices):
        opt = SAMON(sgd(net), model=net, **choices)
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        for objective in opt.passes():
            if not objective.is_ascent:
                changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
            objective(forward(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()
        return changed, opt.last.norm

    changed, norm = moved()
    assert changed == {"g.weight", "g.bias"}
    assert norm == pytest.approx(0.5, rel=1e-5)
    assert moved(types=(*NORMALISATION, MyNorm))[0] == {"g.weight", "g.bias", "own.scale"}
    with pytest.raises(ValueError, match="OnlyModules"):
        moved(types=(nn.GroupNorm,))
    with pytest.raises(TypeError, match="types="):
        moved(types=("LayerNorm",))
