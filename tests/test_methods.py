"""The named methods: their numbers, BiSAM's two objectives, every method in a compiled model."""

import pytest
import torch
from torch import nn

import bisam
from bisam import METHODS, BiSAM, LowerBoundLoss
from bisam.testing import Net, batches, run_steps
from tests.makers import MAKERS
from tests.steps import X, Y, moves, sgd, turn


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: bisam.ESAM(b, beta=0.0), "beta=0.0"),
        (lambda b: bisam.GSAM(b, alpha=-1.0), "alpha=-1.0"),
        (lambda b: bisam.WSAM(b, gamma=1.0), "gamma=1.0"),
        (lambda b: bisam.LookSAM(b, k=0), "k=0"),
        (lambda b: bisam.FriendlySAM(b, decay=1.5), "decay=1.5"),
        (lambda b: bisam.VaSSO(b, theta=0), "theta=0"),
        (lambda b: bisam.FisherSAM(b, eta=-1), "eta=-1"),
        (lambda b: bisam.SSAM(b, sparsity=1.0), "sparsity=1.0"),
        (lambda b: bisam.SSAM(b, rule="magic"), "rule='magic'"),
        (lambda b: bisam.AESAM(b, total_steps=0), "total_steps=0"),
        (lambda b: bisam.AESAM(b, delta=2), "delta=2"),
    ],
)
def test_numbers_are_checked_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.optim.SGD(Net().parameters(), lr=0.1))


def test_bisam_climbs_q_and_descends_cross_entropy():
    model, plain = Net(), Net()
    LowerBoundLoss("tanh")(plain(X), Y).backward()
    eps = moves(BiSAM(sgd(model), model=model, bound="tanh"), model)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.parameters()]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    with torch.no_grad():
        for p, e, g in zip(plain.parameters(), eps, grads, strict=True):
            torch.testing.assert_close(e, 0.05 * g / norm, rtol=1e-9, atol=1e-14)
            p.add_(e)
    plain.zero_grad()
    nn.functional.cross_entropy(plain(X), Y).backward()
    torch.testing.assert_close(model.head.weight.grad, plain.head.weight.grad, rtol=1e-9, atol=1e-14)


def test_bisam_ignores_what_its_descent_ignores():
    model = Net()
    opt = BiSAM(sgd(model), model=model, descent=nn.CrossEntropyLoss(ignore_index=2))
    assert opt.estimator.ascent.ignore_index == 2
    turn(opt, model)


@pytest.mark.matrix("compile")
@pytest.mark.parametrize("name", METHODS)
def test_a_compiled_model_takes_the_same_steps(name):
    weights = []
    for compiled in (False, True):
        model = Net()
        torch._dynamo.reset()
        call = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        opt = MAKERS[name](torch.optim.SGD(model.parameters(), lr=0.05), model=call, rho=0.2)
        run_steps(call, opt, batches(4))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
