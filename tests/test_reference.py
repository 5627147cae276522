"""Every method against its textbook, choices against one another, and golden numbers against silent changes."""

import itertools

import pytest
import torch
from torch import nn

import bisam
from bisam import ASAM, METHODS, SAM, BiSAM, LowerBoundLoss, ScaledBall
from bisam.cadence import Adaptive, Always, Bernoulli, Every, Window
from bisam.combine import Blend, Reuse, Surrogate
from bisam.direction import Friendly, Smoothed
from bisam.geometry import FisherBall, L2Ball, OnlyModules, RandomSupport, SparseSupport
from bisam.testing import Net, batches, run_steps
from tests.makers import UNDER_EACH_ASCENT, each_ascent
from tests.reference import family
from tests.reference.bounds import PHI, lower_bound
from tests.reference.steps import asam_scale, msam_gradient, sharpness_aware_step
from tests.steps import NEEDS_THIRD_PASS, NUMBERS, build, sgd

BASES = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.005),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05),
}


def _q(name):
    return lambda logits, target: lower_bound(logits, target, name)


RULES = {
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
@pytest.mark.parametrize("method", RULES)
def test_hundred_steps_equal_the_textbook(method, base):
    make, rule = RULES[method]
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


@pytest.mark.matrix("textbook")
@pytest.mark.parametrize("case", [case for case in UNDER_EACH_ASCENT if case[0] != "bisam"], ids=each_ascent)  # above
def test_every_method_equals_its_textbook(case):
    name, foreign = case
    data, ours, theirs, memory = batches(100), Net(), Net(), {}
    choices = {"ascent": LowerBoundLoss(), "third_pass": name in NEEDS_THIRD_PASS} if foreign else {}
    run_steps(ours, build(name, ours, **choices), data)
    base = sgd(theirs, lr=0.05)
    objective = (lambda f, y: lower_bound(f, y, "log")) if foreign else nn.functional.cross_entropy
    for t, (x, y) in enumerate(data):
        family.step(getattr(family, name), theirs, base, x, y, t, memory, ascent=objective, **NUMBERS[name])
    for (key, p), q in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")
    if name == "aesam":
        assert 10 < sum(memory["perturbed"]) < 90  # both kinds of steps were taken


def test_every_method_is_here():
    assert set(NUMBERS) == set(METHODS)


DIRECTIONS = {"none": None, "vasso": Smoothed(0.4), "friendlysam": Friendly(0.8, 0.7)}
BALLS = {"l2": L2Ball, "asam": ScaledBall, "fishersam": FisherBall}
SUPPORTS = {
    "all": lambda ball: ball,
    "esam": lambda ball: RandomSupport(0.6, inner=ball),
    "samon": lambda ball: OnlyModules(inner=ball),
    "ssam": lambda ball: SparseSupport(0.5, every=3, total_steps=7, inner=ball),
}
COMBINATIONS = {"none": None, "gsam": Surrogate(0.4), "wsam": Blend(2.0), "looksam": Reuse(0.7)}
CADENCES = {
    "always": (Always(), lambda g, t, memory: True),
    "every": (Every(2), lambda g, t, memory: t % 2 == 0),
    "window": (Window(2, 5), lambda g, t, memory: 2 <= t < 5),
    "bernoulli": (Bernoulli(0.5, seed=3), lambda g, t, memory: t in (0, 3, 6)),
    "adaptive": (Adaptive(7, delta=0.5), lambda g, t, memory: family.is_large(g, t, memory, 7, delta=0.5)),
}
ASCENTS = {"cross-entropy": None, "lower-bound": LowerBoundLoss()}
AXES = (DIRECTIONS, BALLS, SUPPORTS, COMBINATIONS, ASCENTS, CADENCES)


def crossed():
    """All directions x balls x supports x combinations, and to each an ascent and a cadence in turn."""
    names = [list(axis) for axis in AXES]
    for numbers in itertools.product(*[range(len(axis)) for axis in AXES[:4]]):
        numbers = (*numbers, sum(numbers) % len(ASCENTS), sum(numbers) % len(CADENCES))
        yield tuple(axis[number] for axis, number in zip(names, numbers, strict=True))


CASES = list(crossed())


def test_every_choice_meets_every_choice_of_the_other_axes():
    for (i, one), (j, other) in itertools.combinations(enumerate(AXES), 2):
        assert {(case[i], case[j]) for case in CASES} == set(itertools.product(one, other))


@pytest.mark.matrix("textbook", row="combinations")
@pytest.mark.parametrize(("direction", "ball", "support", "combine", "ascent", "cadence"), CASES)
def test_all_choices_combine(direction, ball, support, combine, ascent, cadence):
    """Most of them no method is named after."""
    data, ours, theirs, memory = batches(7), Net(), Net(), {}
    when, perturbs = CADENCES[cadence]
    opt = bisam.SharpnessAware(
        sgd(ours, lr=0.05),
        model=ours,
        rho=0.2,
        ascent=ASCENTS[ascent],
        direction=DIRECTIONS[direction],
        geometry=SUPPORTS[support](BALLS[ball]()),
        cadence=when,
        combine=COMBINATIONS[combine],
        third_pass=True,
    )
    run_steps(ours, opt, data)
    base = sgd(theirs, lr=0.05)
    choices = {"direction": direction, "ball": ball, "support": support, "combine": combine, "perturbs": perturbs}
    objective = (lambda f, y: lower_bound(f, y, "log")) if ASCENTS[ascent] else nn.functional.cross_entropy
    for t, (x, y) in enumerate(data):
        family.step(family.composed, theirs, base, x, y, t, memory, ascent=objective, rho=0.2, **choices)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
    assert cadence == "always" or {*memory["perturbed"]} == {False, True}


@pytest.mark.parametrize("m", [2, 4])
def test_a_loop_around_the_loop_is_msam(m):
    (x, y), model, other = batches(1)[0], Net(), Net()
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.1)
    for xs, ys in zip(x.chunk(m), y.chunk(m), strict=True):
        for objective in opt.passes():
            (objective(model(xs), ys) / m).backward()
    expected = msam_gradient(other, x, y, 0.1, m)
    ours = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient, textbook in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, textbook, rtol=1e-12, atol=1e-14)


def test_blend_is_the_coupled_wsam_gradient():
    (x, y), model, plain = batches(1)[0], Net(), Net()
    first = torch.autograd.grad(nn.functional.cross_entropy(plain(x), y), plain.head.weight)[0]
    for objective in SAM(torch.optim.SGD(plain.parameters()), model=plain, rho=0.1).passes():
        objective(plain(x), y).backward()
    for objective in SAM(torch.optim.SGD(model.parameters()), model=model, rho=0.1, combine=Blend(9.0)).passes():
        objective(model(x), y).backward()
    torch.testing.assert_close(model.head.weight.grad, 9 * plain.head.weight.grad - 8 * first, rtol=1e-10, atol=1e-12)


def test_golden_losses():
    """Last-pass losses of step 1, 10 and 40 in float64: a change here is a change in numerics."""
    seen = {}
    for name in ("sam", "asam", "bisam-log", "bisam-tanh"):
        model = Net()
        losses = run_steps(model, RULES[name][0](BASES["sgd"](model.parameters()), model), batches(40))
        seen[name] = [losses[i] for i in (0, 9, 39)]
    assert seen == {name: pytest.approx(values, abs=5e-7) for name, values in GOLDEN.items()}


GOLDEN = {
    "sam": [1.570616, 1.364640, 1.410346],
    "asam": [1.810015, 1.474055, 1.497651],
    "bisam-log": [1.569700, 1.360675, 1.403948],
    "bisam-tanh": [1.570615, 1.364639, 1.410413],
}
