"""Mixed precision: one autocast region, and torch.amp.GradScaler with overflows in either pass."""

import math

import pytest
import torch
from torch import nn

from bisam import METHODS, SAM, BiSAM
from bisam.testing import Net, batches, bits
from tests import steps
from tests.makers import MAKERS

FAMILY = pytest.mark.parametrize("method", MAKERS.values(), ids=METHODS)


def build(method, rho=0.05, scale=2.0**10, *, warm=False):
    model = Net().float()
    opt = method(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=rho)
    if warm and opt.estimator.passes_per_step.sharp == 1:  # it climbs what an earlier step has left
        x, y = torch.ones(16, 6), torch.arange(16) % 4
        for objective in opt.passes():
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    return model, opt, torch.amp.GradScaler("cpu", init_scale=scale)


def told(opt, scaler):
    """The loop, told of the scaler only where the method must know."""
    return opt.passes(scaler if opt.estimator.needs_scale else None)


def data():
    return torch.randn(16, 6), torch.randint(0, 4, (16,))


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.matrix("bf16")
@FAMILY
def test_one_autocast_region_does_not_hide_the_perturbation(method):
    """The low-precision weights cached in pass one must not serve pass two, nor those of w + eps what follows."""
    x, y = data()
    one, opt, _ = build(method, rho=1.0, warm=True)
    with torch.autocast("cpu", torch.bfloat16):
        before = one(x)  # fills the cache
        for objective in opt.passes():
            objective(one(x), y).backward()
        assert torch.equal(one(x), before)
    each, opt, _ = build(method, rho=1.0, warm=True)
    plain, zero, _ = build(method, rho=0.0, warm=True)
    for model, optimizer in ((each, opt), (plain, zero)):
        for objective in optimizer.passes():
            with torch.autocast("cpu", torch.bfloat16):
                value = objective(model(x), y)
            value.backward()
    assert torch.equal(gradient(one), gradient(each))
    assert (gradient(one) - gradient(plain)).norm() > 0.05 * gradient(plain).norm()


@pytest.mark.matrix("scaled loss")
@FAMILY
def test_scaled_losses_in_both_passes_change_nothing(method):
    """The scale is a power of two, so the steps are the same to the bit."""
    steps = [data() for _ in range(5)]
    scaled, opt, scaler = build(method)
    for x, y in steps:
        for objective in told(opt, scaler):
            scaler.scale(objective(scaled(x), y)).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(scaled.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    plain, opt, _ = build(method)
    for x, y in steps:
        for objective in opt.passes():
            objective(plain(x), y).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
    for a, b in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.matrix("scaled loss")
@pytest.mark.parametrize("name", METHODS)
def test_scaled_losses_change_nothing_once_the_scale_is_told(name):
    """GradScaler multiplies the losses by ever new numbers: told of them, every method goes the same way."""
    weights = []
    for scaled in (False, True):
        model = Net()
        opt = steps.build(name, model, **({"tail": 1.0} if name == "tailsam" else {}))
        for t, (x, y) in enumerate(batches(12)):
            scale = 2.0 ** (16 - t) if scaled else 1.0
            for objective in opt.passes(grad_scale=torch.tensor(scale) if scaled else None):
                (objective(model(x), y) * scale).backward()
            for p in model.parameters():
                if p.grad is not None:
                    p.grad /= scale
            opt.step()
            opt.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.matrix("scaled loss")
@FAMILY
def test_overflow_in_the_last_pass_skips_the_step(method):
    model, opt, scaler = build(method)
    (x, y), before = data(), bits(model)
    for objective in told(opt, scaler):
        value = scaler.scale(objective(model(x), y))
        (value if objective.is_ascent else value * torch.inf).backward()
    scaler.step(opt)
    scaler.update()
    assert bits(model) == before
    assert scaler.get_scale() == 2.0**9
    assert opt.param_groups[0]["sharpness_steps"] == 0


@pytest.mark.matrix("scaled loss")
@FAMILY
def test_overflow_in_the_first_pass_makes_the_last_one_run_at_w(method):
    model, opt, scaler = build(method)
    (x, y), before = data(), bits(model)
    for objective in told(opt, scaler):
        if not objective.is_ascent:
            assert bits(model) == before
        value = scaler.scale(objective(model(x), y))
        (value * torch.inf if objective.is_ascent else value).backward()
    assert not opt.last.perturbed
    scaler.step(opt)
    scaler.update()
    assert bits(model) != before
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers()), "the overflow has poisoned the running statistics"
    assert scaler.get_scale() == 2.0**10


def test_a_closure_through_the_scaler_is_refused():
    model, opt, scaler = build(SAM)
    x, y = data()
    for objective in opt.passes():
        scaler.scale(objective(model(x), y)).backward()

    def closure():
        loss = opt.objective(model(x), y)
        scaler.scale(loss).backward()
        return loss

    with pytest.raises(RuntimeError, match="still scaled"):
        scaler.step(opt, closure)


@pytest.mark.parametrize("name", ["friendlysam", "vasso", "fishersam", "aesam"])
def test_a_scaler_that_nobody_told_of_is_refused(name):
    model = Net().float()
    x, y = batches(1)[0]
    opt = steps.build(name, model)
    scaler = torch.amp.GradScaler("cpu")
    for objective in opt.passes():
        scaler.scale(objective(model(x.float()), y)).backward()
    with pytest.raises(RuntimeError, match=r"passes\(grad_scale=scaler\)"):
        scaler.step(opt)
    opt.zero_grad()
    for objective in opt.passes(grad_scale=scaler):
        scaler.scale(objective(model(x.float()), y)).backward()
    scaler.step(opt)
    scaler.update()


def test_the_base_does_not_lend_its_amp_support():
    model = Net().float()
    base = torch.optim.Adam(model.parameters(), fused=True)
    assert getattr(base, "_step_supports_amp_scaling", False)
    opt, scaler = SAM(base, model=model), torch.amp.GradScaler("cpu", init_scale=4.0)
    assert not getattr(opt, "_step_supports_amp_scaling", False)
    x, y = data()
    for objective in opt.passes():
        scaler.scale(objective(model(x), y)).backward()
    gradient = model.head.weight.grad.clone()
    scaler.step(opt)
    torch.testing.assert_close(model.head.weight.grad, gradient / 4)
    assert opt.last.perturbed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_under_autocast_learns(dtype):
    torch.manual_seed(0)
    model, opt, scaler = build(BiSAM, rho=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=dtype == torch.float16)
    truth = torch.randn(6, 4)
    first = last = math.nan
    for step in range(60):
        x = torch.randn(64, 6)
        y = (x @ truth).argmax(1)
        with torch.autocast("cpu", dtype):
            for objective in opt.passes():
                value = objective(model(x), y)
                scaler.scale(value).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
        first, last = (value.item() if step == 0 else first), value.item()
    assert opt.last.perturbed
    assert last < 0.75 * first
