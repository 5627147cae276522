"""Cadences: which steps perturb, and what they remember of it."""

import copy

import pytest

from bisam import AESAM, SAM
from bisam.cadence import Bernoulli, Every, Window
from bisam.testing import Net
from tests.steps import X, Y, sgd, turn


def test_an_interval_method_remembers_its_phase():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Every(3))
    passes = []
    for step in range(7):
        passes.append(sum(1 for objective in opt.passes() if objective(model(X), Y).backward() is None))
        opt.step()
        opt.zero_grad()
        if step == 3:
            state = copy.deepcopy(opt.state_dict())
            opt = SAM(sgd(model), model=model, cadence=Every(3))
            opt.load_state_dict(state)
    assert passes == [2, 1, 1, 2, 1, 1, 2]


def test_cadence_advances_by_step_so_that_micro_batches_agree():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Every(2))
    counts = []
    for _ in range(4):
        counts.append([len([objective(model(X), Y).backward() for objective in opt.passes()]) for _ in range(3)])
        opt.step()
    assert counts == [[2, 2, 2], [1, 1, 1]] * 2


def test_window_and_bernoulli_cadences():
    assert [Window(2, 4)(step) for step in range(6)] == [False, False, True, True, False, False]
    assert [Window(1)(step) for step in range(3)] == [False, True, True]
    drawn = [Bernoulli(0.3, seed=1)(step) for step in range(2000)]
    assert 500 < sum(drawn) < 700
    assert drawn == [Bernoulli(0.3, seed=1)(step) for step in range(2000)]
    assert drawn != [Bernoulli(0.3, seed=2)(step) for step in range(2000)]
    for make in (lambda: Window(3, 3), lambda: Window(-1), lambda: Bernoulli(0.0), lambda: Bernoulli(1.5)):
        with pytest.raises(ValueError, match="must"):
            make()


def test_moments_of_a_loop_left_early_or_of_another_run_do_not_count():
    model = Net()
    opt = AESAM(sgd(model), model=model)
    turn(opt, model)
    for objective in opt.passes():
        (1e3 * objective(model(X), Y)).backward()
        if not objective.is_ascent:
            break
    with pytest.raises(RuntimeError, match="left in pass 1"):
        opt.step()
    opt.step()  # told once; the gradient of the first loop is still there
    twin_model = Net()
    twin = AESAM(sgd(twin_model), model=twin_model)
    turn(twin, twin_model)
    twin.step()
    assert opt.param_groups[0]["sharpness_moments"] == twin.param_groups[0]["sharpness_moments"]
