"""Combinations: what becomes the gradient, where it lies, and how large its numbers are."""

import pytest
import torch
from torch import nn

from bisam import SAM, LookSAM
from bisam.cadence import Adaptive, Every
from bisam.combine import Blend
from bisam.testing import Net, batches, run_steps
from tests.makers import MAKERS
from tests.steps import X, Y, sgd, turn


def test_combine_with_an_engine_that_keeps_gradients_in_one_place():
    """As DDP's bucket views do: the carried gradient and the new one share their storage."""
    model, other = Net(), Net()
    place = torch.ones_like(model.head.weight)
    model.head.weight.grad, other.head.weight.grad = place, torch.ones_like(place)

    def into_place(param):
        place.copy_(param.grad)
        param.grad = place

    model.head.weight.register_post_accumulate_grad_hook(into_place)
    for net in (model, other):
        turn(SAM(sgd(net), model=net, combine=Blend(0.8)), net)
    torch.testing.assert_close(model.head.weight.grad, other.head.weight.grad)


@pytest.mark.parametrize("name", ["gsam", "wsam", "looksam"])
@pytest.mark.parametrize("scale", [1e-39, 1e38])
def test_combining_gradients_at_the_ends_of_float32(name, scale):
    model = nn.Linear(6, 4)
    opt = MAKERS[name](sgd(model), model=model)
    for objective in opt.passes():
        (objective(model(X.float()), Y) * scale).backward()
    assert model.weight.grad.isfinite().all()
    assert (model.weight.grad != 0).any()


def test_looksam_reuses_on_the_steps_an_adaptive_cadence_leaves_plain():
    class Even(Adaptive):
        def decide(self, step, squared_norm, moments):
            return step % 2 == 0, [1.0, 1.0]

    weights = []
    for cadence in (Even(), Every(2)):
        model = Net()
        run_steps(model, LookSAM(sgd(model), model=model, rho=0.5, cadence=cadence), batches(6))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)
