"""The schedule of rho: along the learning rate, or on any schedule of torch."""

import copy
import math

import pytest
import torch

from bisam import GSAM, SAM, RhoScheduler
from bisam.testing import Net, batches, run_steps
from tests.steps import sgd, turn


def test_rho_follows_the_learning_rate():
    model = Net()
    opt = SAM(sgd(model, lr=0.4), model=model, rho=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)
    radius = RhoScheduler(opt, rho_min=0.1)
    for _ in range(10):
        assert math.isclose(opt.param_groups[0]["rho"], 0.1 + 0.1 * opt.param_groups[0]["lr"] / 0.4)
        run_steps(model, opt, batches(1))
        schedule.step()
        radius.step()
    assert radius.get_last_rho() == [pytest.approx(0.1)]


def test_rho_along_the_learning_rate_between_two_bounds():
    model = Net()
    groups = [{"params": [model.first.weight]}, {"params": [model.head.weight], "rho": 0.0}]
    opt = GSAM(torch.optim.SGD(groups, lr=0.1), model=model, rho=0.2)
    lr = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1 - 0.25 * t)
    rho = RhoScheduler(opt, rho_min=0.02, lr_min=0.025)
    seen = [rho.get_last_rho()]
    for x, y in batches(4):
        turn(opt, model, x, y)
        opt.step()
        lr.step()
        rho.step()
        seen.append(rho.get_last_rho())
    assert [s[0] for s in seen] == pytest.approx([0.2, 0.14, 0.08, 0.02, 0.02])
    assert all(s[1] == 0 for s in seen)  # a group that was to stay put


def test_rho_on_any_torch_schedule_saved_and_resumed():
    def make():
        model = Net()
        opt = SAM(sgd(model), model=model, rho=0.2)
        return model, opt, RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5))

    _, opt, schedule = make()
    seen = []
    for step in range(6):
        seen.append(opt.param_groups[0]["rho"])
        schedule.step()
        if step == 2:
            state = copy.deepcopy((opt.state_dict(), schedule.state_dict()))
            _, opt, schedule = make()
            opt.load_state_dict(state[0])
            schedule.load_state_dict(state[1])
    assert seen == pytest.approx([0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    assert opt.param_groups[0]["lr"] == 0.1


def test_rho_on_a_plateau():
    model = Net()
    opt = SAM(sgd(model), rho=0.2)
    schedule = RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5))
    for metric in (1.0, 2.0):
        schedule.step(metric)
    assert schedule.get_last_rho() == [0.1]


def test_rho_schedules_survive_a_plain_checkpoint_and_a_new_group():
    model = Net()
    plain = torch.optim.SGD([model.first.weight], lr=0.1).state_dict()
    for make in (None, lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5)):
        opt = SAM(torch.optim.SGD([model.first.weight], lr=0.1), rho=0.2)
        schedule = RhoScheduler(opt, make)
        opt.load_state_dict(copy.deepcopy(plain))
        opt.add_param_group({"params": [model.head.weight], "rho": 0.3})
        schedule.step()
        assert schedule.get_last_rho() == ([0.2, 0.3] if make is None else [0.1, 0.3])
        opt.param_groups.clear()


def test_rho_scheduler_errors():
    model = Net()
    with pytest.raises(TypeError, match="no rho"):
        RhoScheduler(sgd(model))
    opt = SAM(sgd(model))
    with pytest.raises(ValueError, match="lr_max=0"):
        RhoScheduler(opt, lr_max=0)
    with pytest.raises(ValueError, match="rho_min=-1"):
        RhoScheduler(opt, rho_min=-1)
    with pytest.raises(ValueError, match="leave them out"):
        RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.StepLR(o, 2), rho_min=0.1)
