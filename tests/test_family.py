"""The SAM family: each method against its textbook for a hundred steps, climbing cross-entropy or the lower bound."""

import itertools

import pytest
import torch
from torch import nn

import bisam
from bisam import METHODS, LowerBoundLoss
from bisam.cadence import Adaptive, Always, Bernoulli, Every, Window
from bisam.combine import Blend, Reuse, Surrogate
from bisam.direction import Friendly, Smoothed
from bisam.geometry import FisherBall, L2Ball, OnlyModules, RandomSupport, ScaledBall, SparseSupport
from bisam.testing import Net, batches, run_steps
from tests.makers import MAKERS
from tests.reference import family
from tests.reference.bounds import lower_bound

NUMBERS = {
    "sam": {"rho": 0.1},
    "asam": {"rho": 0.5, "eta": 0.01},
    "bisam": {"rho": 0.1},
    "esam": {"rho": 0.1, "beta": 0.6},
    "gsam": {"rho": 0.1, "alpha": 0.4},
    "wsam": {"rho": 0.05, "gamma": 0.7},
    "looksam": {"rho": 0.1, "k": 3, "alpha": 0.3},
    "friendlysam": {"rho": 0.1, "sigma": 0.8, "decay": 0.6},
    "vasso": {"rho": 0.1, "theta": 0.4},
    "samon": {"rho": 0.5},
    "fishersam": {"rho": 0.1, "eta": 1.0},
    "ssam": {"rho": 0.1, "sparsity": 0.5, "every": 10, "drop_rate": 0.5, "total_steps": 100},
    "aesam": {"rho": 0.1, "total_steps": 100},
    "tailsam": {"rho": 0.1, "total_steps": 100, "tail": 0.3},
    "momentumsam": {"rho": 0.3},
    "asyncsam": {"rho": 0.1},
    "usam": {"rho": 0.1, "lambda_": 0.3},
    "lesam": {"rho": 0.3, "sigma": 0.05},
    "stablesam": {"rho": 0.1},
    "functionalsam": {"rho": 0.1},
}
NEEDS_THIRD_PASS = {"gsam", "wsam", "looksam", "aesam", "stablesam"}
#: They climb no objective, so there is none to replace.
WITHOUT_ASCENT = {"momentumsam", "asyncsam"}


def build(name, model, **more):
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return MAKERS[name](base, model=model, **{**NUMBERS[name], **more})


@pytest.mark.matrix("textbook")
@pytest.mark.parametrize("ascent", ["cross-entropy", "lower-bound"])
@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "bisam"])  # which test_reference.py has
def test_hundred_steps_equal_the_textbook(name, ascent):
    if ascent == "lower-bound" and name in WITHOUT_ASCENT:
        return
    data, ours, theirs, memory = batches(100), Net(), Net(), {}
    foreign = ascent == "lower-bound"
    choices = {"ascent": LowerBoundLoss(), "third_pass": name in NEEDS_THIRD_PASS} if foreign else {}
    run_steps(ours, build(name, ours, **choices), data)
    base = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
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
        torch.optim.SGD(ours.parameters(), lr=0.05, momentum=0.9),
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
    base = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    choices = {"direction": direction, "ball": ball, "support": support, "combine": combine, "perturbs": perturbs}
    objective = (lambda f, y: lower_bound(f, y, "log")) if ASCENTS[ascent] else nn.functional.cross_entropy
    for t, (x, y) in enumerate(data):
        family.step(family.composed, theirs, base, x, y, t, memory, ascent=objective, rho=0.2, **choices)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
    assert cadence == "always" or {*memory["perturbed"]} == {False, True}


@pytest.mark.matrix("compile")
@pytest.mark.parametrize("name", NUMBERS)
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


@pytest.mark.parametrize("name", sorted(NEEDS_THIRD_PASS))
def test_what_needs_the_other_gradient_says_how_to_get_it(name):
    model = Net()
    with pytest.raises(ValueError, match="third_pass=True"):
        build(name, model, ascent=LowerBoundLoss())
    kinds = []
    opt = build(name, model, ascent=LowerBoundLoss(), third_pass=True)
    x, y = batches(1)[0]
    for loss in opt.passes():
        kinds.append((loss.index, loss.is_ascent, loss.loss is opt.estimator.ascent))
        loss(model(x), y).backward()
    assert kinds == [(0, True, False), (1, True, True), (2, False, False)]


@pytest.mark.matrix("scaled loss")
@pytest.mark.parametrize("name", NUMBERS)
def test_scaled_losses_change_nothing_once_the_scale_is_told(name):
    """GradScaler multiplies the losses by ever new numbers: told of them, every method goes the same way."""
    weights = []
    for scaled in (False, True):
        model = Net()
        opt = build(name, model, **({"tail": 1.0} if name == "tailsam" else {}))
        for t, (x, y) in enumerate(batches(12)):
            scale = 2.0 ** (16 - t) if scaled else 1.0
            for loss in opt.passes(grad_scale=torch.tensor(scale) if scaled else None):
                (loss(model(x), y) * scale).backward()
            for p in model.parameters():
                if p.grad is not None:
                    p.grad /= scale
            opt.step()
            opt.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["friendlysam", "vasso", "fishersam", "aesam"])
def test_a_scaler_that_nobody_told_of_is_refused(name):
    model = Net().float()
    x, y = batches(1)[0]
    opt = build(name, model)
    scaler = torch.amp.GradScaler("cpu")
    for loss in opt.passes():
        scaler.scale(loss(model(x.float()), y)).backward()
    with pytest.raises(RuntimeError, match=r"passes\(grad_scale=scaler\)"):
        scaler.step(opt)
    opt.zero_grad()
    for loss in opt.passes(grad_scale=scaler):
        scaler.scale(loss(model(x.float()), y)).backward()
    scaler.step(opt)
    scaler.update()


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
    for loss in opt.passes():
        value = loss(model(x), y)
        (value * factor if loss.is_ascent else value).backward()
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
    for loss in opt.passes():
        loss(model(x), y).backward()
        if not loss.is_ascent:
            break
    for old, new in zip(remembered, saved(opt), strict=True):
        assert torch.equal(old, new)


def saved(opt):
    state = opt.state_dict()["state"]
    return [v.clone() for own in state.values() for k, v in own.items() if k.startswith("sharpness_")]


def test_memory_is_float32_under_bf16_weights_and_survives_a_checkpoint():
    model = nn.Linear(6, 4).bfloat16()
    opt = bisam.VaSSO(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    x, y = torch.randn(8, 6).bfloat16(), torch.randint(0, 4, (8,))
    with pytest.warns(UserWarning, match="round small perturbations"):
        for loss in opt.passes():
            loss(model(x), y).backward()
    opt.step()
    (mean, _) = saved(opt)
    assert mean.dtype == torch.float32
    twin = bisam.VaSSO(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    twin.load_state_dict(opt.state_dict())
    assert torch.equal(saved(twin)[0], mean)


def test_the_memory_of_one_method_means_nothing_to_another():
    model, data = Net(), batches(2)
    opt = build("vasso", model)
    run_steps(model, opt, data)
    other = build("sam", model)
    other.load_state_dict(opt.state_dict())
    assert all(set(own) == {"momentum_buffer"} for own in other.state_dict()["state"].values())
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain.load_state_dict(other.state_dict())


def test_random_supports_are_drawn_from_seed_and_step():
    model, (x, y) = Net(), batches(1)[0]

    def support(seed, step):
        opt = bisam.ESAM(torch.optim.SGD(model.parameters(), lr=0.0), model=model, rho=0.5, beta=0.5, seed=seed)
        for group in opt.param_groups:
            group["sharpness_steps"] = step
        before = model.middle.weight.detach().clone()
        for loss in opt.passes():
            if not loss.is_ascent:
                moved = model.middle.weight.detach() != before
            loss(model(x), y).backward()
        return moved

    first = support(0, 3)
    assert 0.2 < first.double().mean() < 0.8
    assert torch.equal(first, support(0, 3))  # a resumed run, or another micro-batch
    assert not torch.equal(first, support(0, 4))
    assert not torch.equal(first, support(1, 3))


def test_sam_on_goes_by_type_not_by_name():
    class MyNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.scale * x / x.norm(dim=-1, keepdim=True)

    net = nn.ModuleDict({"normal": nn.Linear(6, 4), "g": nn.LayerNorm(4), "own": MyNorm(), "out": nn.Linear(4, 3)})

    def forward(x):
        return net["out"](net["own"](net["g"](net["normal"](x))))

    def moved(**choices):
        opt = bisam.SAMON(torch.optim.SGD(net.parameters(), lr=0.1), model=net, **choices)
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        for loss in opt.passes():
            if not loss.is_ascent:
                changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
            loss(forward(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()
        return changed, opt.last.norm

    changed, norm = moved()
    assert changed == {"g.weight", "g.bias"}
    assert norm == pytest.approx(0.5, rel=1e-5)
    assert moved(types=(*bisam.geometry.NORMALISATION, MyNorm))[0] == {"g.weight", "g.bias", "own.scale"}
    with pytest.raises(ValueError, match="OnlyModules"):
        moved(types=(nn.GroupNorm,))
    with pytest.raises(TypeError, match="types="):
        moved(types=("LayerNorm",))


def test_layer_ball_is_the_layer_wise_rule():
    model, other = Net(), Net()
    x, y = batches(1)[0]
    opt = bisam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5, geometry=bisam.geometry.LayerBall())
    at = family.At(other, x, y)
    g = at(at.w)
    T = torch.cat([p.detach().norm().expand(p.numel()) for _, p in at.params])
    eps = 0.5 * T**2 * g / (T * g).norm()
    for loss in opt.passes():
        if not loss.is_ascent:
            here = family.At(model, x, y).w - at.w
        loss(model(x), y).backward()
    torch.testing.assert_close(here, eps, rtol=1e-9, atol=1e-12)


def test_the_sparse_mask_holds_its_share_through_all_changes():
    model, data = Net(), batches(45)
    opt = build("ssam", model)
    total = sum(p.numel() for p in model.parameters() if p.requires_grad and p is not model.unused)
    for number, batch in enumerate(data):
        run_steps(model, opt, [batch])
        live = total - sum(float(v.sum()) for v in saved(opt))
        assert live == round(total / 2), number


def test_fisher_mask_takes_the_largest_per_sample_information():
    model, twin = Net(), Net()
    model.eval()
    opt = bisam.SSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, sparsity=0.7, rule="fisher")
    x, y = batches(1)[0]
    bisam.loops.learn_fisher_mask(
        opt, zip(x, y, strict=True), lambda s: nn.functional.cross_entropy(model(s[0][None]), s[1][None]).backward()
    )
    twin.eval()
    information = sum(
        family.At(twin, xs[None], ys[None])(family.At(twin, xs[None], ys[None]).w) ** 2
        for xs, ys in zip(x, y, strict=True)
    )
    names = [n for n, _ in family.At(twin, x, y).params]
    expected = torch.zeros(len(information)).index_fill(0, information.topk(round(0.3 * len(information))).indices, 1.0)
    state = opt.state_dict()["state"]
    ids = {n: i for i, (n, _) in enumerate(model.named_parameters())}
    resting = torch.cat([state[ids[n]]["sharpness_resting"].flatten() for n in names])
    assert torch.equal(1 - resting, expected.double())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(TypeError, match="learn_fisher_mask needs"):
        bisam.loops.learn_fisher_mask(build("ssam", model), [], print)
    with pytest.raises(ValueError, match="no gradient"):
        bisam.loops.learn_fisher_mask(opt, [], print)


def test_window_and_bernoulli_cadences():
    from bisam.cadence import Bernoulli, Window

    assert [Window(2, 4)(step) for step in range(6)] == [False, False, True, True, False, False]
    assert [Window(1)(step) for step in range(3)] == [False, True, True]
    drawn = [Bernoulli(0.3, seed=1)(step) for step in range(2000)]
    assert 500 < sum(drawn) < 700
    assert drawn == [Bernoulli(0.3, seed=1)(step) for step in range(2000)]
    assert drawn != [Bernoulli(0.3, seed=2)(step) for step in range(2000)]
    for make in (lambda: Window(3, 3), lambda: Window(-1), lambda: Bernoulli(0.0), lambda: Bernoulli(1.5)):
        with pytest.raises(ValueError, match="must"):
            make()


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


def test_maximising_turns_the_perturbation_around():
    """Maximising R is minimising -R: same weights, to the bit."""
    ours, theirs = Net(), Net()
    up = torch.optim.SGD(ours.parameters(), lr=0.1, maximize=True)
    down = torch.optim.SGD(theirs.parameters(), lr=0.1)

    def reward(f, y):
        return -nn.functional.cross_entropy(f, y)

    run_steps(ours, bisam.SAM(up, model=ours, rho=0.1, descent=reward), batches(5))
    run_steps(theirs, bisam.SAM(down, model=theirs, rho=0.1), batches(5))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
    model = Net()
    opt = bisam.BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), model=model)
    with pytest.raises(ValueError, match="maximize=True"):
        next(opt.passes())
