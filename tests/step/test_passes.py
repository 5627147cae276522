"""The loop and its objectives: in order, out of order, by hand."""

import math

import pytest
from torch import nn

from bisam import SAM, BiSAM
from bisam.testing import Net, bits, run_steps
from tests.steps import X, Y, sgd, turn


def test_objectives_tell_which_pass_they_are():
    model = Net()
    opt = BiSAM(sgd(model), model=model)
    seen = []
    for objective in opt.passes():
        assert opt.objective is objective
        value = objective(model(X), Y)
        assert objective.value == value.detach()
        value.backward()
        seen.append((objective.index, objective.is_ascent, value.item()))
    assert [s[:2] for s in seen] == [(0, True), (1, False)]
    assert math.isclose(opt.last.ascent_value, seen[0][2])
    assert "LowerBoundLoss" in repr(opt)
    assert "perturbed=True" in repr(opt.last)
    with pytest.raises(RuntimeError, match="while a pass runs"):
        _ = opt.objective


def test_an_objective_must_return_a_tensor():
    model = Net()
    with pytest.raises(TypeError, match="returned tuple"):
        turn(SAM(sgd(model), descent=lambda f, y: (f, y)), model)


def test_a_closure_that_ignores_the_objective_is_refused_not_turned_into_sam():
    for missed in (0, 1):
        model = Net()
        opt, before = BiSAM(sgd(model), model=model), bits(model)
        with pytest.raises(RuntimeError, match=r"without a call of its (ascent|descent) objective"):
            for objective in opt.passes():
                (nn.functional.cross_entropy if objective.index == missed else objective)(model(X), Y).backward()
        assert bits(model) == before
        assert model.head.weight.grad is None
    model = Net()
    for _ in SAM(sgd(model), model=model).passes():  # one loss in both passes: any way of calling it will do
        nn.functional.cross_entropy(model(X), Y).backward()


def test_an_objective_whose_loop_has_ended_refuses_to_be_called():
    model = Net()
    opt = BiSAM(sgd(model), model=model)
    held = opt.passes()
    objective = next(held)
    opt.zero_grad()
    with pytest.raises(RuntimeError, match="pass is over"):
        objective(model(X), Y)


@pytest.mark.parametrize("method", ["zero_grad", "state_dict", "passes"])
def test_ending_the_loop_from_inside_is_said_not_silent(method):
    model = Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    with pytest.raises(RuntimeError, match=r"inside `for objective in opt.passes\(\)`"):
        for _ in opt.passes():
            getattr(opt, method)()
            nn.functional.cross_entropy(model(X), Y).backward()
    assert bits(model) == before


def test_step_inside_the_loop():
    """In the ascent pass it is an error; in the last one it ends the loop as the loop would have ended."""
    model, other = Net(), Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    with pytest.raises(RuntimeError, match="ascent pass"):
        for objective in opt.passes():
            objective(model(X), Y).backward()
            opt.step()
    assert bits(model) == before
    model.zero_grad()
    for objective in opt.passes():
        objective(model(X), Y).backward()
        if not objective.is_ascent:
            opt.step()
    run_steps(other, SAM(sgd(other), model=other), [(X, Y)])
    assert bits(model) == bits(other)


def test_passes_by_hand_lose_no_gradient():
    """``next()`` twice and never a third time: step(), or the next passes(), ends the loop as it should end."""
    model, other = Net(), Net()
    opt = BiSAM(sgd(model), model=model)
    for _ in range(2):
        held = opt.passes()
        for _ in range(2):
            next(held)(model(X), Y).backward()
    opt.step()
    theirs = BiSAM(sgd(other), model=other)
    turn(theirs, other)
    turn(theirs, other)
    theirs.step()
    assert bits(model) == bits(other)
