"""Faults that reviews and use have found; each failed before it was mended."""

import copy
import math

import pytest
import torch
from torch import nn

from bisam import ASAM, SAM, BiSAM, LowerBoundLoss, RhoScheduler, ScaledBall
from bisam.cadence import Every
from bisam.combine import Blend
from bisam.functional import binary_lower_bound_loss, lower_bound_loss
from bisam.testing import Net, batches, bits, run_steps

X, Y = batches(1)[0]


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def turn(opt, model):
    for loss in opt.passes():
        loss(model(X), Y).backward()


def perturbations(params, gradients, rho=1.0, method=SAM, **choices):
    """Moves of ``params`` whose ascent gradients are ``gradients``."""
    opt = method(
        torch.optim.SGD(params, lr=0.1), rho=rho, descent=lambda: torch.zeros((), requires_grad=True), **choices
    )
    before = [p.detach().clone() for p in params]
    loop = opt.passes()
    next(loop)
    for p, g in zip(params, gradients, strict=True):
        p.grad = g.clone()
    next(loop)
    moves = [(p.detach() - b).double() for p, b in zip(params, before, strict=True)]
    del loop
    return moves


@pytest.mark.filterwarnings("ignore:weights in torch.float16")
@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((torch.float16, [0.0, 0.0]), (torch.float32, [1e-9, 2e-9])),  # the common peak is 0 in float16
        ((torch.float32, [0.0, 0.0]), (torch.float64, [1e-60, 1e-60])),
        ((torch.float16, [6e4, 3e4]), (torch.float32, [1e5, 2e5])),  # the common peak is inf in float16
        ((torch.float16, [1.0, 2.0]), (torch.float32, [1e-3, 1e-3])),
    ],
)
def test_one_norm_over_dtypes_of_different_range(low, high):
    params = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype, _ in (low, high)]
    grads = [torch.tensor(values, dtype=dtype) for dtype, values in (low, high)]
    exact = torch.cat([g.double() for g in grads])
    moved = torch.cat(perturbations(params, grads))
    torch.testing.assert_close(moved, exact / exact.norm(), rtol=2e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:weights in torch.float16")
def test_asam_in_float16_does_not_overflow():
    weights = nn.Parameter(torch.full((3,), 100.0, dtype=torch.float16))
    (moved,) = perturbations([weights], [torch.full((3,), 1000.0, dtype=torch.float16)], rho=0.5, method=ASAM)
    torch.testing.assert_close(
        moved, torch.full((3,), 100.0 * 0.5 / math.sqrt(3), dtype=torch.double), rtol=5e-3, atol=0
    )


def test_a_frozen_parameter_with_a_stale_gradient_stays():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    model.first.weight.requires_grad_(False)
    before, stale = bits(model), model.first.weight.grad.clone()
    turn(opt, model)
    assert bits(model) == before
    assert torch.equal(model.first.weight.grad, stale)


def test_parameters_of_another_optimizer_gain_the_last_gradient_alone():
    """GANs, a separate head, Muon for matrices: with model= the ascent pass leaves nothing behind in them."""
    model, plain = Net(), Net()
    opt = BiSAM(torch.optim.SGD(model.first.parameters(), lr=0.1), model=model, rho=1e-12)
    turn(opt, model)
    nn.functional.cross_entropy(plain(X), Y).backward()
    torch.testing.assert_close(model.head.weight.grad, plain.head.weight.grad, rtol=1e-6, atol=1e-9)


def test_adadelta_has_a_rho_of_its_own():
    with pytest.raises(ValueError, match="Adadelta has a rho of its own"):
        SAM(torch.optim.Adadelta(Net().parameters()))


def test_a_failed_constructor_leaves_the_base_as_it_was():
    model = Net()
    base = torch.optim.SGD([{"params": model.parameters(), "rho": -1.0}], lr=0.1)
    with pytest.raises(ValueError, match="rho=-1"):
        SAM(base)
    base.param_groups[0]["rho"] = 0.1
    SAM(base)


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


def test_one_pass_steps_give_gradients_back_too():
    model = Net()
    opt = BiSAM(sgd(model), model=model, cadence=Every(2))
    run_steps(model, opt, batches(1))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for loss in opt.passes():
        loss(model(X), Y).backward()
        break
    assert all((p.grad == 1).all() for p in model.parameters())
    with pytest.raises(RuntimeError, match="without a call"):
        for _ in opt.passes():
            model(X).sum().backward()
    assert all((p.grad == 1).all() for p in model.parameters())


class Odd(nn.Module):
    """Buffers that have no plain bits, none of which a forward pass writes; and one that it does write."""

    def __init__(self):
        super().__init__()
        z = torch.randn(3, dtype=torch.complex64)
        self.register_buffer("expanded", torch.zeros(1).expand(5))
        self.register_buffer("conjugate", z.conj())
        self.register_buffer("negative", z.conj().imag)
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("count", torch.zeros(()))
        self.linear = nn.Linear(6, 4).double()

    def forward(self, x):
        self.count += 1
        self.conjugate += 1
        return self.linear(x)


def test_buffers_of_any_kind():
    model = Odd()
    start = model.conjugate.clone()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    assert model.count == 1
    torch.testing.assert_close(model.conjugate, start + 1)
    turn(opt, model)
    assert model.count == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python reports a failing close() so
def test_gradients_come_back_even_where_a_buffer_cannot(monkeypatch):
    model = Net()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    opt, before = SAM(sgd(model), model=model), bits(model)

    def broken(self):
        raise RuntimeError("no such buffer")

    monkeypatch.setattr("bisam._step.model.Buffers.restore", broken)
    with pytest.raises(MemoryError):
        for loss in opt.passes():
            loss(model(X), Y).backward()
            if not loss.is_ascent:
                raise MemoryError
    assert bits(model) == before
    assert (model.head.weight.grad == 1).all()


def test_conjugate_gradients():
    w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    opt = SAM(torch.optim.SGD([w], lr=0.1), descent=lambda: (w.conj() * torch.arange(3)).imag.pow(2).sum())
    before = w.detach().clone()
    for _ in range(2):
        for loss in opt.passes():
            loss().backward()
    assert torch.equal(w, before)
    assert opt.last.perturbed


def test_sparse_gradients_carried_into_a_group_without_radius():
    model = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 3))
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[1].parameters()}]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model)
    x, y = torch.tensor([1, 2]), torch.tensor([0, 1])
    nn.functional.cross_entropy(model(x), y).backward()
    before = model[0].weight.grad.to_dense().clone()
    for loss in opt.passes():
        loss(model(x), y).backward()
        if not loss.is_ascent:
            break
    torch.testing.assert_close(model[0].weight.grad.to_dense(), before)
    with pytest.raises(ValueError, match="need dense gradients"):
        for loss in SAM(torch.optim.SGD([g | {"lr": 0.1} for g in groups], lr=0.1), combine=Blend(0.5)).passes():
            loss(model(x), y).backward()


def test_a_step_that_no_pass_went_before_does_not_move_the_cadence():
    """torch.distributed.checkpoint steps an optimizer to furnish its state."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = Net()
    opt = SAM(sgd(model), model=model)
    run_steps(model, opt, batches(2))
    get_optimizer_state_dict(model, opt)
    assert opt.param_groups[0]["sharpness_steps"] == 2


def test_rho_schedules_survive_a_plain_checkpoint_and_a_new_group():
    model = Net()
    plain = torch.optim.SGD([model.first.weight], lr=0.1).state_dict()
    for build in (None, lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5)):
        opt = SAM(torch.optim.SGD([model.first.weight], lr=0.1), rho=0.2)
        schedule = RhoScheduler(opt, build)
        opt.load_state_dict(copy.deepcopy(plain))
        opt.add_param_group({"params": [model.head.weight], "rho": 0.3})
        schedule.step()
        assert schedule.get_last_rho() == ([0.2, 0.3] if build is None else [0.1, 0.3])
        opt.param_groups.clear()


def test_rho_on_a_plateau():
    model = Net()
    opt = SAM(sgd(model), rho=0.2)
    schedule = RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5))
    for metric in (1.0, 2.0):
        schedule.step(metric)
    assert schedule.get_last_rho() == [0.1]


@pytest.mark.parametrize("bound", ["log", "tanh", "ramp", "softsign", "shifted-tanh"])
def test_second_derivatives_are_finite_where_classes_are_masked(bound):
    x = torch.tensor([[-torch.inf, 0.0, 1.0], [torch.inf, 0.0, 1.0]], requires_grad=True)
    (first,) = torch.autograd.grad(LowerBoundLoss(bound)(x, torch.tensor([1, 1])), x, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.tensor([1.0, 2.0, 3.0])).sum(), x)
    assert second.isfinite().all()


def test_small_print_of_the_losses():
    f, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="-1"):
        binary_lower_bound_loss(f[:, 0], torch.tensor([0, 1, -1, 0]))
    with pytest.raises(TypeError, match="target of type list"):
        lower_bound_loss(f, [0, 1, 2, 0])
    with pytest.raises(RuntimeError, match="out of bounds"):
        torch.func.vmap(lower_bound_loss)(f, y + 5)
    assert lower_bound_loss(f, torch.softmax(f.double(), 1)).dtype == torch.float32


@pytest.mark.parametrize(
    ("choice", "word"),
    [({"geometry": ScaledBall}, "geometry="), ({"descent": "ce"}, "descent='ce'"), ({"cadence": 5}, "cadence=5")],
)
def test_choices_are_checked_when_they_are_made(choice, word):
    with pytest.raises(TypeError, match=word):
        SAM(sgd(Net()), **choice)


def test_an_objective_must_return_a_tensor():
    model = Net()
    with pytest.raises(TypeError, match="returned tuple"):
        turn(SAM(sgd(model), descent=lambda f, y: (f, y)), model)
