"""The fast versions against the textbook for 100 steps, and golden numbers against silent changes."""

import pytest
import torch
from torch import nn

from bisam import ASAM, SAM, BiSAM, ScaledBall
from bisam.combine import Blend
from bisam.testing import Net, batches, run_steps
from tests.reference.bounds import PHI, lower_bound
from tests.reference.steps import asam_scale, msam_gradient, sharpness_aware_step

BASES = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.005),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05),
}


def _q(name):
    return lambda logits, target: lower_bound(logits, target, name)


METHODS = {
    "sam": (lambda base, m: SAM(base, model=m, rho=0.1), {"rho": 0.1}),
    "asam": (lambda base, m: ASAM(base, model=m, rho=0.5), {"rho": 0.5, "scale": asam_scale}),
    **{
        f"bisam-{name}": (
            lambda base, m, n=name: BiSAM(base, model=m, rho=0.1, bound=n),
            {"rho": 0.1, "ascent": _q(name)},
        )
        for name in PHI
    },
    "bisam-log+asam": (
        lambda base, m: BiSAM(base, model=m, rho=0.5, geometry=ScaledBall()),
        {"rho": 0.5, "ascent": _q("log"), "scale": asam_scale},
    ),
}


@pytest.mark.matrix("textbook")
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_hundred_steps_equal_the_textbook(method, base):
    make, rule = METHODS[method]
    data = batches(100)
    ours, theirs = Net(), Net()
    run_steps(ours, make(BASES[base](ours.parameters()), ours), data)
    optimizer = BASES[base](theirs.parameters())
    for x, y in data:
        sharpness_aware_step(theirs, optimizer, x, y, **rule)
    moved = False
    for (name, p), q, start in zip(ours.named_parameters(), theirs.parameters(), Net().parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        moved |= not torch.equal(p, start)
    for (name, p), q in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    assert moved


@pytest.mark.parametrize("m", [2, 4])
def test_a_loop_around_the_loop_is_msam(m):
    (x, y), model, other = batches(1)[0], Net(), Net()
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1)
    for xs, ys in zip(x.chunk(m), y.chunk(m), strict=True):
        for loss in opt.passes():
            (loss(model(xs), ys) / m).backward()
    expected = msam_gradient(other, x, y, 0.1, m)
    ours = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient, textbook in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, textbook, rtol=1e-12, atol=1e-14)


def test_blend_is_the_coupled_wsam_gradient():
    (x, y), model, plain = batches(1)[0], Net(), Net()
    first = torch.autograd.grad(nn.functional.cross_entropy(plain(x), y), plain.head.weight)[0]
    for loss in SAM(torch.optim.SGD(plain.parameters()), rho=0.1).passes():
        loss(plain(x), y).backward()
    for loss in SAM(torch.optim.SGD(model.parameters()), rho=0.1, combine=Blend(9.0)).passes():
        loss(model(x), y).backward()
    torch.testing.assert_close(model.head.weight.grad, 9 * plain.head.weight.grad - 8 * first, rtol=1e-10, atol=1e-12)


def test_golden_losses():
    """Last-pass losses of step 1, 10 and 40 in float64: a change here is a change in numerics."""
    seen = {}
    for name in ("sam", "asam", "bisam-log", "bisam-tanh"):
        model = Net()
        losses = run_steps(model, METHODS[name][0](BASES["sgd"](model.parameters()), model), batches(40))
        seen[name] = [losses[i] for i in (0, 9, 39)]
    assert seen == {name: pytest.approx(values, abs=5e-7) for name, values in GOLDEN.items()}


GOLDEN = {
    "sam": [1.570616, 1.364640, 1.410346],
    "asam": [1.810015, 1.474055, 1.497651],
    "bisam-log": [1.569700, 1.360675, 1.403948],
    "bisam-tanh": [1.570615, 1.364639, 1.410413],
}
