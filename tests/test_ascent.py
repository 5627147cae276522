"""Ascents without a pass: the base's momentum, and the gradient of the step before."""

import io

import pytest
import torch
from torch import nn

from bisam import GSAM, SAM, AsyncSAM, LowerBoundLoss, MomentumSAM, SharpnessAware
from bisam.ascent import BaseMomentum, LastGradient, StoredAscent
from bisam.cadence import Every
from bisam.geometry import ScaledBall
from bisam.testing import CONTRACT, SPEED, Net, batches, bits, run_steps


def sgd(params, **numbers):
    return torch.optim.SGD(params, **{"lr": 0.1, "momentum": 0.9, **numbers})


def seen_at(opt, model, x, y):
    """Where the last pass of a step sees the weights, as the move away from w."""
    before = [p.detach().clone() for p in model.parameters()]
    moved = None
    for objective in opt.passes():
        moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
        objective(model(x), y).backward()
    opt.step()
    opt.zero_grad()
    return moved


@pytest.mark.parametrize("uphill", [False, True])
@pytest.mark.parametrize(
    ("make", "key"),
    [
        (sgd, "momentum_buffer"),
        (lambda p: torch.optim.AdamW(p, lr=0.01), "exp_avg"),
        (lambda p: torch.optim.NAdam(p, lr=0.01), "exp_avg"),
        (lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9), "momentum_buffer"),
    ],
    ids=["sgd", "adamw", "nadam", "rmsprop"],
)
def test_the_gradient_is_taken_against_the_momentum_or_along_it(make, key, uphill):
    """At w - rho v / ||v||, as the paper and its authors' code have it; uphill at w + rho v / ||v||."""
    model = Net()
    opt = MomentumSAM(make(model.parameters()), model=model, rho=0.3, uphill=uphill)
    data = batches(3)
    assert all((m == 0).all() for m in seen_at(opt, model, *data[0]))  # no momentum yet
    assert not opt.last.perturbed
    for x, y in data[1:]:
        v = {p: opt.base.state[p][key].clone() for p in model.parameters() if p in opt.base.state}
        length = torch.stack([m.norm() for m in v.values()]).norm()
        for p, moved in zip(list(model.parameters()), seen_at(opt, model, x, y), strict=True):
            expected = (1 if uphill else -1) * 0.3 * v[p] / length if p in v else torch.zeros_like(p)
            torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-12)


def test_maximising_goes_the_other_way():
    """A base that maximises accumulates -g, so the same point is w - rho v / ||v||: ahead of the update."""
    weights = []
    for maximize in (False, True):
        model = Net()
        sign = -1.0 if maximize else 1.0
        opt = SharpnessAware(
            sgd(model.parameters(), maximize=maximize),
            model=model,
            rho=0.3,
            ascent=BaseMomentum(),
            descent=lambda f, y, sign=sign: sign * nn.functional.cross_entropy(f, y),
        )
        run_steps(model, opt, batches(5))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_one_pass_a_step_and_the_weights_come_back():
    for kind in (MomentumSAM, AsyncSAM):
        model, data = Net(), batches(4)
        opt = kind(sgd(model.parameters()), model=model, rho=0.3)
        assert opt.estimator.passes_per_step == (1, 1, 1.0)
        for x, y in data:
            before, indices = bits(model), []
            for objective in opt.passes():
                indices.append((objective.index, objective.is_ascent))
                objective(model(x), y).backward()
            assert bits(model) == before
            assert indices == [(0, False)]
            opt.step()
            opt.zero_grad()
        assert opt.last.norm == pytest.approx(0.3)
        assert opt.last.ascent_value is None


def test_the_last_gradient_is_the_one_that_was_descended_and_is_saved():
    model, data = Net(), batches(3)
    opt = AsyncSAM(sgd(model.parameters()), model=model, rho=0.3)
    for x, y in data[:2]:
        for objective in opt.passes():
            objective(model(x), y).backward()
        last = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}
        opt.step()
        opt.zero_grad()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    twin = AsyncSAM(sgd(model.parameters()), model=model, rho=0.3)
    twin.load_state_dict(torch.load(file, weights_only=True))
    length = torch.stack([g.norm() for g in last.values()]).norm()
    for p, moved in zip(list(model.parameters()), seen_at(twin, model, *data[2]), strict=True):
        expected = 0.3 * last[p] / length if p in last else torch.zeros_like(p)
        torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-12)


def test_a_loop_that_is_left_leaves_no_last_gradient():
    model, (x, y) = Net(), batches(1)[0]
    opt = AsyncSAM(sgd(model.parameters()), model=model, rho=0.3)
    for objective in opt.passes():
        objective(model(x), y).backward()
        break
    assert all((m == 0).all() for m in seen_at(opt, model, x, y))


def test_carried_gradients_are_not_part_of_the_last_one():
    model, (x, y) = Net(), batches(1)[0]
    opt = AsyncSAM(sgd(model.parameters()), model=model, rho=0.3)
    model.head.weight.grad = torch.full_like(model.head.weight, 5.0)
    for objective in opt.passes():
        objective(model(x), y).backward()
    gained = model.head.weight.grad - 5.0
    vector = opt.state_dict()["state"]
    kept = [own["sharpness_last"] for own in vector.values() if own["sharpness_last"].shape == gained.shape]
    assert any(torch.allclose(k, gained, rtol=1e-9, atol=1e-12) for k in kept)


def test_it_combines_with_a_geometry_a_cadence_and_a_third_pass():
    model = Net()
    opt = MomentumSAM(sgd(model.parameters()), model=model, rho=0.3, geometry=ScaledBall(), cadence=Every(2))
    run_steps(model, opt, batches(6))
    model = Net()
    opt = GSAM(sgd(model.parameters()), model=model, ascent=LastGradient(), third_pass=True)
    assert opt.estimator.passes_per_step.sharp == 2
    run_steps(model, opt, batches(4))
    assert opt.last.perturbed


class Ones(StoredAscent):
    """An ascent of one's own: along the vector of ones."""

    def __call__(self, params, base, memory):
        from bisam.choice import Vector

        return Vector.of((p, torch.ones_like(p)) for p in params)


def test_an_ascent_of_ones_own():
    model, (x, y) = Net(), batches(1)[0]
    opt = SAM(sgd(model.parameters()), model=model, rho=0.3, ascent=Ones())
    trained = [p for p in model.parameters() if p.requires_grad]
    entries = sum(p.numel() for p in trained)
    for p, moved in zip(list(model.parameters()), seen_at(opt, model, x, y), strict=True):
        expected = 0.3 / entries**0.5 if p.requires_grad else 0.0
        torch.testing.assert_close(moved, torch.full_like(p, expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("check", [*CONTRACT, *SPEED], ids=lambda check: check.__name__)
@pytest.mark.parametrize("ascent", [BaseMomentum(uphill=True), LastGradient()], ids=lambda a: type(a).__name__)
def test_battery(ascent, check):
    check(lambda model: SAM(sgd(model.parameters()), model=model, ascent=ascent))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: MomentumSAM(torch.optim.SGD(p, lr=0.1)), r"momentum=0.*momentum=0\.9"),
        (lambda p: MomentumSAM(sgd(p), uphill=1), "uphill=1 must be True or False"),
        (lambda p: MomentumSAM(sgd(p), uphill=True, ascent=LowerBoundLoss()), "uphill=True has no effect"),
        (lambda p: SAM(sgd(p), descent=LastGradient()), "has no loss to descend: pass it as ascent="),
        (lambda p: GSAM(sgd(p), ascent=LastGradient()), "third_pass=True"),
    ],
)
def test_errors(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(Net().parameters())


def test_a_base_whose_state_has_no_momentum_is_told_in_the_second_step():
    model, data = Net(), batches(2)
    opt = MomentumSAM(torch.optim.Adagrad(model.parameters(), lr=0.1), model=model)
    run_steps(model, opt, data[:1])
    with pytest.raises(RuntimeError, match=r"Adagrad holds no momentum_buffer or exp_avg.*key="):
        run_steps(model, opt, data[1:])
    named = MomentumSAM(torch.optim.Adagrad(model.parameters(), lr=0.1), model=model, key="sum")
    run_steps(model, named, data)


def test_momentum_in_shards_is_refused():
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        """Stands for torch.distributed.optim's, which needs a process group: it is known by its name."""

    model = Net()
    base = ZeroRedundancyOptimizer(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer keeps a part of the momentum on each worker"):
        MomentumSAM(base, model=model)
