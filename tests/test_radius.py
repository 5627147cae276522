"""Rules for the radius: each against its formula over many steps, saved and resumed, and told of the loss's scale."""

import math

import pytest
import torch
from torch import nn

from bisam import LESAM, SAM, USAM
from bisam.geometry import ScaledBall
from bisam.radius import AccumulatedRadius, LossBudget, PartlyNormalised, Radius
from bisam.testing import CONTRACT, SPEED, Net, batches, run_steps
from tests.reference import family


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.matrix("textbook", "combinations")
@pytest.mark.parametrize(
    ("radius", "rule", "numbers"),
    [
        (LossBudget(0.05), family.lesam, {"rho": 0.3, "sigma": 0.05}),
        (PartlyNormalised(0.3), family.usam, {"rho": 0.3, "lambda_": 0.3}),
        (AccumulatedRadius(0.0), family.lightsam, {"rho": 0.3}),
    ],
    ids=["le-sam", "usam", "lightsam"],
)
def test_a_hundred_steps_equal_the_textbook(radius, rule, numbers):
    ours, theirs, memory = Net(), Net(), {}
    run_steps(ours, SAM(sgd(ours), model=ours, rho=0.3, radius=radius), batches(100))
    base = sgd(theirs)
    for t, (x, y) in enumerate(batches(100)):
        family.step(rule, theirs, base, x, y, t, memory, **numbers)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10)


def climbed(opt, params, grads, *, step=True):
    """||eps|| after a climb along these gradients; without ``step`` it is one micro-batch of several."""
    loop = opt.passes()
    next(loop)
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    next(loop)
    norm = opt.last.norm
    for _ in loop:
        pass
    if step:
        opt.step()
        opt.zero_grad()
    return norm


def test_the_length_of_the_perturbation_is_the_rule():
    param = nn.Parameter(torch.ones(4, dtype=torch.float64))
    for length in (1e-9, 0.1, 3.0, 1e9):
        g = torch.full((4,), length / 2, dtype=torch.float64)
        base = torch.optim.SGD([param], lr=0.0)
        assert climbed(LESAM(base, rho=0.5, sigma=0.1), [param], [g]) == pytest.approx(min(0.1 / length, 0.5))
        base = torch.optim.SGD([param], lr=0.0)
        expected = 0.05 * (0.5 * length + 0.5)
        assert climbed(USAM(base), [param], [g]) == pytest.approx(expected)


def test_the_budget_falls_to_zero_at_the_end():
    rule = LossBudget(0.2, total_steps=100, anneal=0.5)
    assert [rule.budget(t) for t in (0, 50, 75, 100, 200)] == pytest.approx([0.2, 0.2, 0.1, 0.0, 0.0])
    falling = [rule.budget(t) for t in range(50, 101)]
    assert falling == sorted(falling, reverse=True)
    with pytest.raises(ValueError, match=r"anneal=0\.1 has no effect without total_steps="):
        LossBudget(0.2, anneal=0.1)


def test_the_sum_of_norms_is_saved_and_counts_steps_not_micro_batches():
    param = nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = SAM(torch.optim.SGD([param], lr=0.0), rho=1.0, radius=AccumulatedRadius(0.0))
    one = [torch.ones(1, dtype=torch.float64)]
    assert [climbed(opt, [param], one) for _ in range(3)] == pytest.approx([1, 1 / math.sqrt(2), 1 / math.sqrt(3)])
    saved = opt.state_dict()
    again = SAM(torch.optim.SGD([param], lr=0.0), rho=1.0, radius=AccumulatedRadius(0.0))
    again.load_state_dict(saved)
    assert climbed(again, [param], one) == pytest.approx(1 / 2)
    parts = [
        climbed(again, [param], one, step=step) for step in (False, False, True)
    ]  # one step of three micro-batches
    assert parts == pytest.approx([1 / math.sqrt(5)] * 3)
    assert climbed(again, [param], one) == pytest.approx(1 / math.sqrt(6))


def test_groups_keep_the_ratio_of_their_radii():
    params = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": [params[0]], "rho": 0.2}, {"params": [params[1]], "rho": 0.1}]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), radius=PartlyNormalised(0.0))
    loop = opt.passes()
    next(loop)
    for p in params:
        p.grad = torch.full((1,), 3.0, dtype=torch.float64)
    next(loop)
    length = math.hypot(3.0, 3.0)
    ours = [p.item() for p in params]
    loop.leave("the test")
    unit = [0.2 * 3 * 0.2, 0.1 * 3 * 0.1]
    expected = [length * u / math.hypot(0.2 * 3, 0.1 * 3) for u in unit]
    assert ours == pytest.approx(expected)


class Half(Radius):
    """Half the radius: a rule of one's own."""

    def __call__(self, rho, norm, memory):
        return torch.full_like(norm, rho / 2)


@pytest.mark.parametrize("check", [*CONTRACT, *SPEED], ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "radius", [LossBudget(0.1), PartlyNormalised(0.5), AccumulatedRadius(), Half()], ids=lambda r: type(r).__name__
)
def test_battery(radius, check):
    check(lambda model: SAM(sgd(model), model=model, radius=radius, geometry=ScaledBall()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LossBudget(0), "sigma=0"),
        (lambda: PartlyNormalised(1.5), "lambda_=1.5"),
        (lambda: PartlyNormalised(-0.1), "lambda_=-0.1"),
        (lambda: AccumulatedRadius(-1), "epsilon=-1"),
        (lambda: LossBudget("0.1"), "leave out the quotes"),
    ],
)
def test_errors(make, words):
    with pytest.raises((TypeError, ValueError), match=words.replace(".", r"\.")):
        make()


@pytest.mark.parametrize("scale", [2.0**-83, 1.0, 2.0**83])
@pytest.mark.parametrize("radii", [(0.1,), (0.1, 0.025)])
def test_a_rule_is_given_the_norm_also_where_float32_cannot_hold_the_squares(scale, radii):
    seen = []

    class Rule(Radius):
        def __call__(self, rho, norm, memory):
            seen.append(norm)
            return torch.full_like(norm, rho)

    model, (x, y) = Net().float(), batches(1)[0]
    params = list(model.parameters())
    groups = [{"params": params[i :: len(radii)], "rho": rho} for i, rho in enumerate(radii)]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model, radius=Rule())
    for objective in opt.passes():
        (objective(model(x.float()), y) * scale).backward()
        if objective.is_ascent:
            grads = [p.grad.double().flatten() for p in params if p.grad is not None]
            wanted = torch.cat(grads).norm()
    torch.testing.assert_close(seen[0].double(), wanted, rtol=1e-5, atol=0)
