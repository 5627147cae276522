"""Combinations: what becomes the gradient, where it lies, and how large its numbers are."""

import copy

import pytest
import torch
from torch import nn

from bisam import SAM, WSAM, LookSAM
from bisam.cadence import Adaptive, Every
from bisam.combine import AfterStepCombine, Blend
from bisam.testing import Net, batches, bits, run_steps
from tests.makers import MAKERS
from tests.reference import family
from tests.steps import X, Y, build, sgd, turn


def test_combine_with_an_engine_that_keeps_gradients_in_one_place():
    """As DDP's bucket views do: the carried gradient and the new one share their storage."""
    model, other = Net(), Net()
    place = torch.ones_like(model.head.weight)
    model.head.weight.grad, other.head.weight.grad = place, torch.ones_like(place)

    def into_place(param):
        place.copy_(param.grad)
        param.grad = place

    model.head.weight.register_post_accumulate_grad_hook(into_place)
    for net in (model, other):
        turn(SAM(sgd(net), model=net, combine=Blend(0.8)), net)
    torch.testing.assert_close(model.head.weight.grad, other.head.weight.grad)


@pytest.mark.parametrize("name", ["gsam", "wsam", "looksam"])
@pytest.mark.parametrize("scale", [1e-39, 1e38])
def test_combining_gradients_at_the_ends_of_float32(name, scale):
    model = nn.Linear(6, 4)
    opt = MAKERS[name](sgd(model), model=model)
    for objective in opt.passes():
        (objective(model(X.float()), Y) * scale).backward()
    assert model.weight.grad.isfinite().all()
    assert (model.weight.grad != 0).any()


def test_looksam_reuses_on_the_steps_an_adaptive_cadence_leaves_plain():
    class Even(Adaptive):
        def decide(self, step, squared_norm, moments):
            return step % 2 == 0, [1.0, 1.0]

    weights = []
    for cadence in (Even(), Every(2)):
        model = Net()
        run_steps(model, LookSAM(sgd(model), model=model, rho=0.5, cadence=cadence), batches(6))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


def wsam(model, lr=0.1, momentum=0.9, **options):
    """The decoupled WSAM, and what a textbook needs to know of it."""
    return WSAM(sgd(model, lr, momentum), model=model, rho=0.2, gamma=0.8, decoupled=True, **options)


def two_gradients(model, x=X, y=Y):
    """(g, g_s) of every parameter that has one: at w, and at w + 0.2 g / ||g||."""
    at = family.At(model, x, y)
    g = at(at.w)
    return [v.split(at.sizes.tolist()) for v in (g, at(at.w + 0.2 * g / g.norm()))], [p for _, p in at.params]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_under_plain_sgd_the_two_forms_of_wsam_are_one(weight_decay):
    weights = []
    for decoupled in (False, True):
        model = Net()
        base = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=weight_decay)
        run_steps(model, WSAM(base, model=model, rho=0.2, decoupled=decoupled), batches(100))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_decoupled_wsam_leaves_the_gradient_at_w_and_steps_after_the_base():
    model = Net()
    ((g, g_s), params), start = two_gradients(model), [p.detach().clone() for p in model.parameters()]
    groups = [{"params": [p], "lr": 0.1 * (1 + number)} for number, p in enumerate(model.parameters())]
    base = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    opt = WSAM(base, model=model, rho=0.2, gamma=0.8, decoupled=True)
    turn(opt, model)
    for p, plain in zip(params, g, strict=True):
        torch.testing.assert_close(p.grad.flatten(), plain, rtol=1e-12, atol=1e-15)
    opt.step()
    rates = {p: 0.1 * (1 + number) for number, p in enumerate(model.parameters())}
    before = dict(zip(model.parameters(), start, strict=True))
    for p, plain, sharp in zip(params, g, g_s, strict=True):
        expected = before[p].flatten() - rates[p] * (plain + 4.0 * (sharp - plain))
        torch.testing.assert_close(p.detach().flatten(), expected, rtol=1e-10, atol=1e-13)
    for p, plain in zip(params, g, strict=True):  # momentum has not seen the sharpness
        torch.testing.assert_close(base.state[p]["momentum_buffer"].flatten(), plain, rtol=1e-12, atol=1e-15)


def test_a_base_that_maximises_steps_the_other_way():
    weights = []
    for maximize in (False, True):
        model = Net()
        base = torch.optim.SGD(model.parameters(), lr=0.05, maximize=maximize)

        def descent(output, target, sign=-1 if maximize else 1):
            return sign * nn.functional.cross_entropy(output, target)

        run_steps(model, WSAM(base, model=model, rho=0.2, decoupled=True, descent=descent), batches(5))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_the_second_part_adds_up_over_micro_batches():
    """As p.grad does; one of them has a parameter more."""
    model, other = Net(), Net()
    opt = wsam(model)
    base = sgd(other)
    for _ in range(3):
        owed = {}
        for number, (x, y) in enumerate(batches(2)):
            for objective in opt.passes():
                extra = model.unused.sum() if number else 0.0
                (0.5 * objective(model(x), y) + extra).backward()
            at = family.At(other, x, y)
            g = at(at.w)
            start = at.w.clone()
            unused = torch.full((2,), 1.0 * number, dtype=torch.float64)
            length = torch.cat([0.5 * g, unused]).norm()
            at.write(at.w + 0.2 * 0.5 * g / length)
            g_s = family.At(other, x, y)(at.w + 0.2 * 0.5 * g / length)
            at.write(start)
            for (name, p), a, b in zip(
                at.params, g.split(at.sizes.tolist()), g_s.split(at.sizes.tolist()), strict=True
            ):
                grad, part = 0.5 * a.view_as(p), 2.0 * (b - a).view_as(p)
                p.grad = grad if p.grad is None else p.grad + grad
                owed[name] = owed.get(name, 0.0) + part
            if number:
                other.unused.grad = torch.ones_like(other.unused)
            other(x)  # running statistics
        opt.step()
        opt.zero_grad()
        base.step()
        with torch.no_grad():
            for name, p in other.named_parameters():
                p.sub_(0.1 * owed.get(name, 0.0))
        base.zero_grad()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)


CLEARED = {
    "opt": lambda opt, model: opt.zero_grad(),
    "opt, to zero": lambda opt, model: opt.zero_grad(set_to_none=False),
    "model": lambda opt, model: model.zero_grad(),
    "model, to zero": lambda opt, model: model.zero_grad(set_to_none=False),
    "base": lambda opt, model: opt.base.zero_grad(),
}


@pytest.mark.parametrize("clear", CLEARED.values(), ids=CLEARED)
def test_the_second_part_goes_when_the_gradient_goes(clear):
    """A gradient that nobody descends, cleared by whomever, leaves no trace in the next step."""
    weights = []
    for first in (False, True):
        model = Net()
        opt = wsam(model)
        if first:
            turn(opt, model)
            clear(opt, model)
            model.norm.reset_running_stats()
        turn(opt, model, *batches(2)[1])
        opt.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


def test_the_second_part_stays_while_the_gradient_stays():
    """Steps without zero_grad: the base descends the first gradient again and again, and so does the second part."""
    weights = []
    for decoupled in (False, True):
        model = Net()
        opt = WSAM(sgd(model, momentum=0.0), model=model, rho=0.2, decoupled=decoupled)
        for batch in batches(3):
            turn(opt, model, *batch)
            opt.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_a_loop_left_early_owes_nothing():
    """What was owed before is owed still, as the gradients from before are there still."""
    model = Net()
    opt = wsam(model)
    for earlier in (False, True):
        if earlier:
            turn(opt, model)
        before = None if opt.memory.owed is None else [row.clone() for row in opt.memory.owed.rows()]
        assert (before is not None) == earlier
        for objective in opt.passes():
            objective(model(X), Y).backward()
            if not objective.is_ascent:
                break
        after = opt.memory.owed
        assert (after is not None) == earlier
        assert not earlier or all(map(torch.equal, before, after.rows()))


def test_the_second_part_is_neither_saved_nor_copied():
    model = Net()
    opt = wsam(model)
    turn(opt, model)
    assert opt.memory.owed is not None
    assert not any("owe" in str(key) for own in opt.state_dict()["state"].values() for key in own)
    twin_model, twin = copy.deepcopy((model, opt))
    assert twin.memory.owed is None
    before = bits(twin_model)
    twin.step()  # without gradients, which are not copied either
    assert bits(twin_model) == before


@pytest.mark.parametrize("told", [True, False])
def test_decoupled_wsam_under_a_grad_scaler(told):
    weights = []
    for scale in (2.0**10, None):
        model = Net().float()
        opt = wsam(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for x, y in batches(5):
            for objective in opt.passes(scaler if told else None):
                scaler.scale(objective(model(x.float()), y)).backward()
            if scale and not told:
                with pytest.raises(RuntimeError, match=r"opt\.passes\(grad_scale=scaler\)"):
                    scaler.step(opt)
                return
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)  # the scale is a power of two


@pytest.mark.parametrize("clear", [CLEARED["opt"], CLEARED["model"]], ids=["opt", "model"])
def test_an_overflow_at_the_perturbed_point_skips_both_steps(clear):
    model, plain = Net().float(), Net().float()
    opt, scaler, before = wsam(model), torch.amp.GradScaler("cpu", init_scale=2.0**10), bits(model)
    for objective in opt.passes(scaler):
        value = scaler.scale(objective(model(X.float()), Y))
        (value if objective.is_ascent else value * torch.inf).backward()
    scaler.step(opt)
    scaler.update()
    assert bits(model) == before
    assert scaler.get_scale() == 2.0**9
    clear(opt, model)
    plain(X.float())
    other = wsam(plain)
    for net, optimizer in ((model, opt), (plain, other)):
        for objective in optimizer.passes(2.0**9):
            (objective(net(X.float()), Y) * 2.0**9).backward()
        for p in net.parameters():
            if p.grad is not None:
                p.grad /= 2.0**9
        optimizer.step()
    assert bits(model) == bits(plain)


def test_an_overflow_at_w_leaves_a_plain_step():
    model, plain = Net(), Net()
    opt = wsam(model)
    for objective in opt.passes():
        (objective(model(X), Y) * (torch.inf if objective.is_ascent else 1)).backward()
    opt.step()
    base = sgd(plain)
    nn.functional.cross_entropy(plain(X), Y).backward()
    base.step()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=0)


def test_clipping_reaches_the_gradient_and_not_the_second_part():
    model = Net()
    (g, g_s), params = two_gradients(model)
    before = {p: p.detach().clone() for p in params}
    opt = wsam(model, momentum=0.0)
    turn(opt, model)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    opt.step()
    for p, plain, sharp in zip(params, g, g_s, strict=True):
        expected = before[p].flatten() - 0.1 * (0.01 / (norm + 1e-6) * plain + 4.0 * (sharp - plain))
        torch.testing.assert_close(p.detach().flatten(), expected, rtol=1e-10, atol=1e-13)


def test_a_closure_and_a_rate_in_a_tensor_take_the_second_part_too():
    model, other = Net(), Net()
    opt, twin = wsam(model, lr=torch.tensor(0.1, dtype=torch.float64)), wsam(other)
    for x, y in batches(4):

        def closure():
            opt.zero_grad()
            loss = opt.objective(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
    run_steps(other, twin, batches(4))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_the_second_part_of_16_bit_weights_is_kept_in_float32():
    coarse = nn.Linear(6, 4).bfloat16()
    start, opt = coarse.weight.detach().clone(), wsam(coarse, momentum=0.0)
    with pytest.warns(UserWarning, match="round small perturbations"):
        turn(opt, coarse, X.bfloat16(), Y)
    owed = opt.memory.owed.parts[0].tensors[0].clone()
    assert owed.dtype == torch.float32
    opt.step()
    middle = start.add(coarse.weight.grad, alpha=-0.1)  # rounded to 16 bits, as SGD leaves it
    torch.testing.assert_close(coarse.weight.detach().float(), middle.float() - 0.1 * owed, rtol=2**-8, atol=1e-6)


def test_a_base_without_a_learning_rate_is_refused():
    class Rateless(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    with pytest.raises(ValueError, match="base=Rateless have no lr"):
        WSAM(Rateless(Net().parameters()), decoupled=True)
    WSAM(Rateless(Net().parameters()))  # the coupled form needs none
    with pytest.raises(TypeError, match="decoupled=1 must be True or False"):
        WSAM(sgd(Net()), decoupled=1)


def test_a_combination_of_ones_own_may_take_a_step_afterwards():
    """One that is not linear sees both gradients in a common unit, and owes in that unit."""

    class Half(AfterStepCombine):
        def __call__(self, at_w, at_perturbed, memory):
            owed = at_perturbed.copy()
            owed.mul_(0.5)
            memory.owe(owed)
            at_perturbed.mul_(0.5)

    weights = []
    for combine in (Half(), None):
        model = Net()
        run_steps(model, SAM(sgd(model, momentum=0.0), model=model, rho=0.2, combine=combine), batches(5))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_each_of_several_bases_has_its_own_rate_afterwards():
    weights = []
    for decoupled in (False, True):
        model = Net()
        params = list(model.parameters())
        bases = [torch.optim.SGD(params[:3], lr=0.05), torch.optim.SGD(params[3:], lr=0.02)]
        run_steps(model, WSAM(bases, model=model, rho=0.2, decoupled=decoupled), batches(5))
        weights.append([p.detach().clone() for p in params])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def into_buffers(opt, model, buffers):
    """Take a step with gradients in buffers of one's own, the same in every pass."""
    for objective in opt.passes():
        for p, buffer in zip(model.parameters(), buffers, strict=True):
            p.grad = buffer.zero_()
        objective(model(X), Y).backward()
    opt.step()
    opt.zero_grad()


def plainly(opt, model):
    turn(opt, model)
    opt.step()
    opt.zero_grad()


@pytest.mark.parametrize("name", ["gsam", "wsam", "looksam", "stablesam"])
def test_gradients_in_the_same_buffers_in_every_pass(name):
    """Combined as they are they would be the gradient at w + eps twice."""
    ours, theirs = Net(), Net()
    opt, other = build(name, ours), build(name, theirs)
    for step in range(5):
        into_buffers(opt, ours, [torch.zeros_like(p) for p in ours.parameters()])
        plainly(other, theirs)
        assert step > 0 or opt.last.perturbed
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["gsam", "wsam", "stablesam"])
def test_a_gradient_at_w_that_somebody_writes_into_later_on_is_told(name):
    model = Net()
    opt = build(name, model)
    plainly(opt, model)
    before = bits(model)
    with pytest.raises(RuntimeError, match=r"gradient of parameter .* at w was changed in place.*p\.grad\.clone"):
        into_buffers(opt, model, [torch.zeros_like(p) for p in model.parameters()])
    assert bits(model) == before
