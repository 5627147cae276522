"""Which parameters a step moves: not the frozen ones, and none with a sparse gradient."""

import pytest
import torch
from torch import nn

from bisam import SAM
from bisam.testing import Net, bits
from tests.steps import moves, sgd, turn


def test_frozen_parameters_stay():
    model = Net()
    model.first.weight.requires_grad_(False)
    opt, before = SAM(sgd(model), model=model), model.first.weight.clone()
    eps = moves(opt, model)
    opt.step()
    assert sum(e.abs().sum() for e in eps) > 0
    assert torch.equal(model.first.weight, before)


def test_a_frozen_parameter_with_a_stale_gradient_stays():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    model.first.weight.requires_grad_(False)
    before, stale = bits(model), model.first.weight.grad.clone()
    turn(opt, model)
    assert bits(model) == before
    assert torch.equal(model.first.weight.grad, stale)


def test_sparse_gradients_are_refused_by_name_and_do_no_harm():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3))
    before = bits(model)
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(ValueError, match=r"0\.weight is sparse.*sparse=False"):
        turn(opt, model, torch.tensor([1, 2]), torch.tensor([0, 1]))
    assert bits(model) == before
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[1].parameters()}]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model)
    turn(opt, model, torch.tensor([1, 2]), torch.tensor([0, 1]))
    opt.step()
    assert opt.last.perturbed
    assert bits(model) != before
