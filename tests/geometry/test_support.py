"""Sets over some of the parameters, or over weights drawn at random."""

import pytest
import torch
from torch import nn

from bisam import ESAM, SAM, SAMON
from bisam.geometry import (
    NORMALISATION,
    FilterBall,
    FisherBall,
    L2Ball,
    LayerBall,
    OnlyModules,
    PNormBall,
    RandomSupport,
    ScaledBall,
    SparseSupport,
    SpectralBall,
)
from bisam.testing import Net, batches, bits, run_steps
from tests.steps import X, Y, moves, sgd, turn


def test_random_supports_are_drawn_from_seed_and_step():
    model = Net()

    def support(seed, step):
        opt = ESAM(sgd(model, lr=0.0), model=model, rho=0.5, beta=0.5, seed=seed)
        for group in opt.param_groups:
            group["sharpness_steps"] = step
        before = model.middle.weight.detach().clone()
        for objective in opt.passes():
            if not objective.is_ascent:
                moved = model.middle.weight.detach() != before
            objective(model(X), Y).backward()
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
        opt = SAMON(sgd(net), model=net, **choices)
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        for objective in opt.passes():
            if not objective.is_ascent:
                changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
            objective(forward(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()
        return changed, opt.last.norm

    changed, norm = moved()
    assert changed == {"g.weight", "g.bias"}
    assert norm == pytest.approx(0.5, rel=1e-5)
    assert moved(types=(*NORMALISATION, MyNorm))[0] == {"g.weight", "g.bias", "own.scale"}
    with pytest.raises(ValueError, match="OnlyModules"):
        moved(types=(nn.GroupNorm,))
    with pytest.raises(TypeError, match="types="):
        moved(types=("LayerNorm",))


def test_a_draw_of_whole_tensors_is_as_long_as_the_authors():
    """rho .05, beta .6: ||eps|| is .0833 where tensors are drawn; drawn weights give .0645 in the root mean square."""
    norms = {"tensor": [], "weight": []}
    for unit, seen in norms.items():
        model = Net()
        opt = ESAM(sgd(model, lr=0.0), model=model, rho=0.05, beta=0.6, unit=unit, seed=1)
        for _ in range(200):
            turn(opt, model)
            opt.step()
            seen.append(opt.last.norm)
    assert norms["tensor"] == pytest.approx([0.05 / 0.6] * 200, rel=1e-12)
    assert torch.tensor(norms["weight"]).square().mean().sqrt() == pytest.approx(0.05 / 0.6**0.5, rel=0.03)


def test_whole_tensors_move_or_rest_under_every_inner_set():
    """The inner set's own point over the tensors that move, 1/beta as long."""
    model, seen = Net(), set()
    for inner in (
        None,
        ScaledBall(),
        FilterBall(),
        PNormBall(3.0),
        PNormBall(torch.inf),
        SpectralBall(),
        OnlyModules(),
    ):
        opt = ESAM(sgd(model, lr=0.0), model=model, rho=0.1, beta=0.4, unit="tensor", inner=inner, seed=3)
        eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model), strict=True))
        live = {n for n, e in eps.items() if e.any()}
        frozen = {n for n, p in model.named_parameters() if n not in live and p.requires_grad}
        assert opt.last.perturbed
        assert live
        assert {*frozen} - {"unused"}
        groups = [
            {"params": [p for n, p in model.named_parameters() if n in live]},
            {"params": [p for n, p in model.named_parameters() if n in frozen], "rho": 0.0},
        ]
        alone = SAM(torch.optim.SGD(groups, lr=0.0), model=model, rho=0.1 / 0.4, geometry=inner or L2Ball())
        for (name, _), expected in zip(model.named_parameters(), moves(alone, model), strict=True):
            torch.testing.assert_close(eps[name], expected, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        seen.add(frozenset(live))
    assert len(seen) > 1  # OnlyModules draws over fewer tensors


def test_a_step_that_draws_no_tensor_does_not_perturb():
    model = Net()
    opt = ESAM(sgd(model), model=model, beta=1e-9, unit="tensor")
    before = bits(model)
    for objective in opt.passes():
        assert bits(model) == before
        objective(model(X), Y).backward()
    assert not opt.last.perturbed
    plain = Net()
    nn.functional.cross_entropy(plain(X), Y).backward()
    assert torch.equal(model.head.weight.grad, plain.head.weight.grad)


def test_micro_batches_and_a_resumed_run_draw_the_same_tensors():
    model = Net()

    def live(opt):
        return [bool(e.any()) for e in moves(opt, model)]

    opt = ESAM(sgd(model, lr=0.0), model=model, beta=0.5, unit="tensor", seed=5)
    first = live(opt)
    assert live(opt) == first
    seen = []
    for _ in range(4):
        opt.step()
        seen.append(live(opt))
    assert any(later != first for later in seen)
    resumed = ESAM(sgd(model, lr=0.0), model=model, beta=0.5, unit="tensor", seed=5)
    resumed.load_state_dict(opt.state_dict())
    assert live(resumed) == seen[-1]


@pytest.mark.parametrize("make", [lambda: RandomSupport(unit="layer"), lambda: ESAM(sgd(Net()), unit="Tensor")])
def test_an_unknown_unit_is_refused_with_the_two_that_there_are(make):
    with pytest.raises(ValueError, match=r"unit='\w+' is unknown: choose 'weight'.*'tensor'"):
        make()


SETS = [
    L2Ball(),
    ScaledBall(),
    LayerBall(),
    LayerBall(scale_biases=False),
    FilterBall(),
    FisherBall(),
    PNormBall(3.0),
    PNormBall(torch.inf),
    SpectralBall(),
    RandomSupport(0.5),
    RandomSupport(0.5, unit="tensor"),
    SparseSupport(0.5, every=1),
]
WRAPPERS = {
    "alone": lambda inner: OnlyModules(inner=inner),
    "random": lambda inner: RandomSupport(0.5, inner=OnlyModules(inner=inner)),
    "random tensors": lambda inner: RandomSupport(0.5, inner=OnlyModules(inner=inner), unit="tensor"),
    "sparse": lambda inner: SparseSupport(0.5, every=1, inner=OnlyModules(inner=inner)),
    "twice": lambda inner: OnlyModules(inner=OnlyModules((nn.BatchNorm1d,), inner=inner)),
}


def grouped(model, still):
    """SGD whose group of the norm's, or of all other parameters, has radius 0."""
    norm = [p for n, p in model.named_parameters() if n.startswith("norm.")]
    rest = [p for n, p in model.named_parameters() if not n.startswith("norm.")]
    radii = {"norm": (0.0, 0.5), "rest": (0.5, 0.0), "both": (0.0, 0.0)}[still]
    groups = [{"params": p, "rho": r} for p, r in zip((norm, rest), radii, strict=True)]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("inner", [s for s in SETS if not isinstance(s, SparseSupport)], ids=repr)
def test_chosen_modules_whose_radius_is_zero_do_not_move(inner, wrap):
    """The step is then the base optimizer's, bit for bit."""
    for still in ("norm", "both"):
        model, plain = Net(), Net()
        opt = SAM(grouped(model, still), model=model, geometry=WRAPPERS[wrap](inner))
        run_steps(model, opt, batches(3))
        assert not opt.last.perturbed
        base = grouped(plain, still)
        for x, y in batches(3):
            nn.functional.cross_entropy(plain(x), y).backward()
            base.step()
            base.zero_grad()
        assert bits(model) == bits(plain)


@pytest.mark.parametrize("geometry", SETS, ids=repr)
@pytest.mark.parametrize("still", ["norm", "rest", "both"])
def test_no_set_stumbles_over_groups_of_radius_zero(geometry, still):
    model = Net()
    opt = SAM(grouped(model, still), model=model, geometry=geometry)
    for x, y in batches(3):
        eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model, x, y), strict=True))
        opt.step()
        opt.zero_grad()
        for name, e in eps.items():
            if still == "both" or name.startswith("norm.") == (still == "norm"):
                assert not e.any(), name
        assert opt.last.perturbed == any(e.any() for e in eps.values())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_radius_that_rises_from_zero_lets_the_norm_layers_move():
    model = Net()
    opt = SAMON(grouped(model, "norm"), model=model)
    turn(opt, model)
    assert not opt.last.perturbed
    opt.param_groups[0]["rho"] = 0.25
    turn(opt, model)
    assert opt.last.norm == pytest.approx(0.25, rel=1e-12)


def test_radius_zero_does_not_hide_that_there_is_no_such_module():
    model = Net()
    opt = SAMON(grouped(model, "norm"), model=model, types=(nn.GroupNorm,))
    with pytest.raises(ValueError, match="belongs to a module of type GroupNorm"):
        turn(opt, model)
    for p in model.norm.parameters():  # frozen ones are no way to perturb either
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        turn(SAMON(grouped(model, "norm"), model=model), model)
