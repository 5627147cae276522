"""The memory of a method: what enters it, what does not, in which dtype, across checkpoints."""

import pytest
import torch
from torch import nn

from bisam import VaSSO
from bisam.testing import Net, batches, run_steps
from tests.makers import MAKERS
from tests.steps import build, saved, sgd, turn


@pytest.mark.parametrize("name", ["friendlysam", "vasso", "looksam", "ssam"])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_does_not_poison_the_memory(name, factor):
    before = 10 if name == "ssam" else 3  # steps: the next one redraws SSAM's mask, and LookSAM perturbs
    model, data = Net(), batches(before + 1)
    opt = build(name, model)
    run_steps(model, opt, data[:before])
    remembered = saved(opt)
    assert any(v.abs().sum() > 0 for v in remembered)
    x, y = data[before]
    for objective in opt.passes():
        value = objective(model(x), y)
        (value * factor if objective.is_ascent else value).backward()
    assert not opt.last.perturbed
    for old, new in zip(remembered, saved(opt), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", ["friendlysam", "vasso", "looksam", "ssam"])
def test_a_loop_left_early_leaves_no_trace_in_the_memory(name):
    model, data = Net(), batches(4)
    opt = build(name, model)
    run_steps(model, opt, data[:3])
    remembered = saved(opt)
    x, y = data[3]
    for objective in opt.passes():
        objective(model(x), y).backward()
        if not objective.is_ascent:
            break
    for old, new in zip(remembered, saved(opt), strict=True):
        assert torch.equal(old, new)


def test_memory_is_float32_under_bf16_weights_and_survives_a_checkpoint():
    model = nn.Linear(6, 4).bfloat16()
    opt = VaSSO(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    x, y = torch.randn(8, 6).bfloat16(), torch.randint(0, 4, (8,))
    with pytest.warns(UserWarning, match="round small perturbations"):
        for objective in opt.passes():
            objective(model(x), y).backward()
    opt.step()
    (mean, _) = saved(opt)
    assert mean.dtype == torch.float32
    twin = VaSSO(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    twin.load_state_dict(opt.state_dict())
    assert torch.equal(saved(twin)[0], mean)


@pytest.mark.parametrize("name", ["looksam", "vasso", "friendlysam", "ssam"])
def test_the_memory_follows_a_model_to_another_dtype(name):
    model = nn.Linear(6, 4)
    opt = MAKERS[name](sgd(model), model=model, rho=0.5)
    opt.state_dict()
    model.double()
    for _ in range(2):
        turn(opt, model)
        opt.step()
        opt.zero_grad()
    values = [v for own in opt.state_dict()["state"].values() for v in own.values()]
    assert all(v.dtype == torch.float64 and v.isfinite().all() and v.abs().max() < 1e3 for v in values)


def test_the_memory_of_one_method_means_nothing_to_another():
    model, data = Net(), batches(2)
    opt = build("vasso", model)
    run_steps(model, opt, data)
    other = build("sam", model)
    other.load_state_dict(opt.state_dict())
    assert all(set(own) == {"momentum_buffer"} for own in other.state_dict()["state"].values())
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain.load_state_dict(other.state_dict())


def test_a_checkpoint_that_does_not_fit_costs_no_memory():
    model, other = Net(), nn.Linear(2, 2)
    opt = VaSSO(sgd(model), model=model)
    turn(opt, model)
    opt.step()
    wrong = VaSSO(torch.optim.SGD([*other.parameters(), nn.Parameter(torch.ones(1))], lr=0.1)).state_dict()
    before = [own["sharpness_mean"].clone() for own in opt.state_dict()["state"].values()]
    with pytest.raises(ValueError, match="parameter group"):
        opt.load_state_dict(wrong)
    for old, own in zip(before, opt.state_dict()["state"].values(), strict=True):
        assert torch.equal(old, own["sharpness_mean"])
