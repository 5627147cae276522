"""SSAM's masks: how many weights they leave, and when they change."""

import torch

from bisam import SSAM
from bisam.geometry import OnlyModules
from bisam.testing import Net, batches, run_steps
from tests.steps import X, Y, build, saved, sgd, turn


def resting(opt):
    return torch.cat([own["sharpness_resting"].flatten() for own in opt.state_dict()["state"].values()])


def test_the_sparse_mask_holds_its_share_through_all_changes():
    model, data = Net(), batches(45)
    opt = build("ssam", model)
    total = sum(p.numel() for p in model.parameters() if p.requires_grad and p is not model.unused)
    for number, batch in enumerate(data):
        run_steps(model, opt, [batch])
        live = total - sum(float(v.sum()) for v in saved(opt))
        assert live == round(total / 2), number


def test_an_overflow_does_not_redraw_the_sparse_mask():
    model = Net()
    opt = SSAM(sgd(model), model=model, every=1)
    turn(opt, model)
    opt.step()
    before = resting(opt)
    assert before.any()
    for objective in opt.passes():
        (objective(model(X), Y) * (torch.inf if objective.is_ascent else 1)).backward()
    assert torch.equal(resting(opt), before)


def test_the_sparse_mask_changes_once_a_step_whatever_the_micro_batches():
    model = Net()
    opt = SSAM(sgd(model), model=model, every=1)
    turn(opt, model)
    first = resting(opt)
    turn(opt, model)
    assert torch.equal(resting(opt), first)
    opt.step()
    turn(opt, model)
    assert not torch.equal(resting(opt), first)


def test_a_sparse_support_over_some_modules_only():
    model = Net()
    opt = SSAM(sgd(model), model=model, rho=0.5, inner=OnlyModules())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for objective in opt.passes():
        if not objective.is_ascent:
            assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} <= {
                "norm.weight",
                "norm.bias",
            }
            assert opt.last.perturbed
        objective(model(X), Y).backward()


def test_an_overflow_in_the_step_that_draws_the_mask_does_not_cost_the_mask():
    """GradScaler skips that step: the next one is the first one again, and draws."""
    model = Net().float()
    opt = SSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.1, sparsity=0.5)
    for factor in (float("inf"), 1.0, 1.0):
        for objective in opt.passes():
            (objective(model(X.float()), Y) * factor).backward()
        if factor == 1.0:
            opt.step()
        opt.zero_grad()
    resting = sum(int(mask.sum()) for mask in saved(opt))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and p is not model.unused)
    assert resting == trained - round(trained * 0.5)
