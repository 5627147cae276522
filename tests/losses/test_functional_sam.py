"""Functional SAM's pair of objectives: J(w + eps)^T dL/dF(w), to rounding."""

import copy
import pickle

import pytest
import torch
from torch import nn

from bisam import SAM, FunctionalSAM, LowerBoundLoss
from bisam.cadence import Every
from bisam.losses.functional_sam import OutputGradient
from bisam.testing import CONTRACT, SPEED, Net, batches, run_steps


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("ascent", [None, LowerBoundLoss(), LowerBoundLoss("tanh")], ids=["ce", "log", "tanh"])
def test_the_jacobian_is_that_at_w_plus_eps_and_the_output_gradient_that_at_w(ascent):
    model, (x, y) = Net(), batches(1)[0]
    twin = copy.deepcopy(model)
    opt = FunctionalSAM(sgd(model), model=model, rho=0.3, **({} if ascent is None else {"ascent": ascent}))
    values = []
    for objective in opt.passes():
        loss = objective(model(x), y)
        loss.backward()
        values.append(loss.item())
    # by hand
    climb = nn.functional.cross_entropy if ascent is None else ascent
    params = [p for p in twin.parameters() if p.requires_grad]
    logits = twin(x)
    leaf = logits.detach().requires_grad_()
    (u,) = torch.autograd.grad(nn.functional.cross_entropy(leaf, y), leaf)
    g = torch.autograd.grad(climb(logits, y), params, allow_unused=True)
    length = torch.stack([v.norm() for v in g if v is not None]).norm()
    with torch.no_grad():
        for p, v in zip(params, g, strict=True):
            if v is not None:
                p += 0.3 * v / length
    at_eps = twin(x)
    expected = torch.autograd.grad((at_eps * u).sum(), params, allow_unused=True)
    for p, q in zip([p for p in model.parameters() if p.requires_grad], expected, strict=True):
        if q is None:
            assert p.grad is None
        else:
            torch.testing.assert_close(p.grad, q, rtol=1e-12, atol=1e-15)
    assert values[0] == pytest.approx(climb(logits, y).item())
    assert values[1] == pytest.approx(nn.functional.cross_entropy(at_eps, y).item())  # a loss, not an inner product


def test_steps_that_do_not_perturb_descend_the_plain_loss():
    weights = []
    for kind in (FunctionalSAM, SAM):
        model = Net()
        opt = kind(sgd(model), model=model, rho=0.0)
        run_steps(model, opt, batches(3))
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))
    model = Net()
    run_steps(model, FunctionalSAM(sgd(model), model=model, cadence=Every(2)), batches(5))


def test_micro_batches_inside_a_pass_are_matched_in_order():
    model, (x, y) = Net(), batches(1)[0]
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    for net, chunks in ((whole, 1), (parts, 4)):
        net.eval()  # BatchNorm would see other batches
        opt = FunctionalSAM(sgd(net), model=net, rho=0.3)
        for objective in opt.passes():
            for xs, ys in zip(x.chunk(chunks), y.chunk(chunks), strict=True):
                (objective(net(xs), ys) / chunks).backward()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)


def test_a_step_that_was_left_leaves_nothing_behind():
    model, (x, y) = Net(), batches(1)[0]
    opt = FunctionalSAM(sgd(model), model=model)
    for objective in opt.passes():
        objective(model(x), y).backward()
        break
    for objective in opt.passes():
        objective(model(x[:4]), y[:4]).backward()  # another size: a stale gradient would not fit


def test_copies_have_a_pair_of_their_own():
    model = Net()
    opt = FunctionalSAM(sgd(model), model=model)
    for _, twin in (copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))):
        assert twin.estimator.descent is not opt.estimator.descent
        assert twin.estimator.ascent.__self__ is twin.estimator.descent


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: OutputGradient("ce"), "loss='ce'"),
        (lambda: OutputGradient(nn.CrossEntropyLoss(), ascent=nn.CrossEntropyLoss), "ascent="),
        (lambda: OutputGradient(nn.CrossEntropyLoss()).at_w({"logits": 1}, 0), "must be a tensor"),
        (
            lambda: OutputGradient(nn.CrossEntropyLoss(reduction="none")).at_w(torch.zeros(2, 3), torch.tensor([0, 1])),
            "must be one number",
        ),
    ],
)
def test_errors(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_other_samples_in_the_second_pass_are_told():
    model, (x, y) = Net(), batches(1)[0]
    opt = FunctionalSAM(sgd(model), model=model)
    with pytest.raises(ValueError, match="the same samples in the same order"):
        for objective in opt.passes():
            n = 16 if objective.is_ascent else 8
            objective(model(x[:n]), y[:n]).backward()


@pytest.mark.parametrize("check", [*CONTRACT, *SPEED], ids=lambda check: check.__name__)
def test_battery_under_the_bound(check):
    check(lambda model: FunctionalSAM(sgd(model), model=model, ascent=LowerBoundLoss()))
