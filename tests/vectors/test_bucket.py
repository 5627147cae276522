"""Which parameters a step moves: not the frozen ones, and none with a sparse gradient."""

import contextlib

import pytest
import torch
from torch import nn

from bisam import SAM
from bisam._vectors.host import as_on_accelerator
from bisam.choice import Vector
from bisam.direction import Direction
from bisam.geometry import Geometry, L2Ball
from bisam.testing import Net, bits
from tests.makers import MAKERS
from tests.steps import moves, perturbations, sgd, turn


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


# -- choices of one's own that hold the tensors ------------------------------------------------------------------------

W = torch.linspace(-1, 1, 40)


def other_lists(buckets):
    """Nothing is read before it is replaced."""
    for bucket in buckets:
        bucket.tensors = [torch.full_like(w, 2.0) for w in bucket.weights]


def held_over_the_division(buckets):
    """The lists are asked for first, and changed when they have been divided."""
    held = [t for bucket in buckets for t in bucket.tensors]
    length = Vector(buckets).norm()
    for bucket in buckets:
        bucket.normalise(length)
    for t in held:
        t.clamp_(-0.01, 0.01)  # the most that a weight may move


def changed_after_a_norm(buckets):
    """A change through ``.data`` leaves no trace."""
    for bucket in buckets:
        bucket.norm()
        for t in bucket.tensors:
            t.data.clamp_(min=0.0)
    L2Ball()(buckets, None)


def other_elements(buckets):
    """New tensors in the list itself, of the versions that the old ones had."""
    for bucket in buckets:
        bucket.tensors[:] = [t * 1 for t in bucket.tensors]
        bucket.norm()
        bucket.tensors[:] = [t.abs() for t in bucket.tensors]
        bucket.tensors[:] = [t * (t > 0.5 * t.amax()) for t in bucket.tensors]
    L2Ball()(buckets, None)


def _large(g):
    return g.abs() * (g.abs() > 0.5 * g.abs().amax())


#: With gradient g = 2 W and radius 0.1: the perturbation.
HELD = {
    other_lists: lambda g: torch.full_like(g, 0.2),
    held_over_the_division: lambda g: (0.1 * g / g.norm()).clamp(-0.01, 0.01),
    changed_after_a_norm: lambda g: 0.1 * g.clamp(min=0) / g.clamp(min=0).norm(),
    other_elements: lambda g: 0.1 * _large(g) / _large(g).norm(),
}


@pytest.mark.parametrize("change", HELD, ids=lambda change: change.__name__)
@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_accelerator])
def test_a_geometry_of_ones_own_gets_what_it_wrote(change, where):
    class Own(Geometry):
        def __call__(self, buckets, memory):
            change(buckets)

    with where():
        (eps,) = perturbations([nn.Parameter(W.clone())], [2 * W], rho=0.1, geometry=Own())
    torch.testing.assert_close(eps.float(), HELD[change](2 * W), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_accelerator])
def test_a_direction_of_ones_own_may_change_the_data_after_it_took_the_norm(where):
    class Own(Direction):
        def __call__(self, gradient, memory):
            gradient.norm()
            for part in gradient.parts:
                for t in part.tensors:
                    t.data.clamp_(min=0.0)

    with where():
        (eps,) = perturbations([nn.Parameter(W.clone())], [2 * W], rho=0.1, direction=Own())
    want = W.clamp(min=0)
    torch.testing.assert_close(eps.float(), 0.1 * want / want.norm(), rtol=1e-4, atol=1e-6)


# -- gradients that lie in one place, as torch.autograd.grad returns them ----------------------------------------------


@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_accelerator])
@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "wsam", "looksam", "stablesam", "vasso", "ssam", "asyncsam"])
def test_gradients_in_one_place_are_worth_what_separate_ones_are(name, where):
    ends = []
    for separate in (True, False):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(4)) for _ in range(3)]
        a, b, c = params
        opt = MAKERS[name](
            torch.optim.SGD(params, lr=0.05),
            rho=0.3,
            descent=lambda a=a, b=b, c=c: ((a + b) ** 2).sum() * (a * b).tanh().sum().detach() + 0.5 * c.sum(),
        )
        for _ in range(6):
            with where():
                for objective in opt.passes():
                    loss = objective()
                    loss.backward()
                    found = torch.autograd.grad(opt.estimator.plain_descent(), params)
                    for p, g in zip(params, found, strict=True):
                        p.grad = g.clone() if separate else g
            opt.step()
            opt.zero_grad()
        ends.append([p.detach() for p in params])
    assert found[0] is found[1]
    assert found[2].stride() == (0,)
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q)
