"""Several base optimizers under one method: one perturbation, one norm, one state dict."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import METHODS, SAM, BiSAM, FriendlySAM, MomentumSAM, RhoScheduler
from bisam.testing import BATTERY, Net, batches, bits
from tests.makers import MAKERS
from tests.reference.steps import sharpness_aware_step
from tests.steps import X, Y, turn


def matrices_and_rest(model):
    """A momentum optimizer for the matrices and AdamW for the rest, as everybody has who uses Muon."""
    matrices = [p for p in model.parameters() if p.ndim == 2 and p.requires_grad]
    rest = [p for p in model.parameters() if p.ndim < 2]
    first = (
        torch.optim.Muon(matrices, lr=0.02)
        if hasattr(torch.optim, "Muon")
        else torch.optim.SGD(matrices, lr=0.05, momentum=0.9)
    )
    return [first, torch.optim.AdamW(rest, lr=0.01)]


def momentum_and_adam(model):
    """Both can be copied to the bit, and both have momentum."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return [
        torch.optim.SGD(matrices, lr=0.05, momentum=0.9),
        torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2], lr=0.01),
    ]


class Both:
    """What the textbook drives: two optimizers that step together."""

    def __init__(self, optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()


@pytest.mark.parametrize("pair", [matrices_and_rest, momentum_and_adam])
def test_a_hundred_steps_equal_the_textbook(pair):
    ours, theirs = Net(), Net()
    opt, base = SAM(pair(ours), model=ours, rho=0.1), Both(pair(theirs))
    for x, y in batches(100):
        turn(opt, ours, x, y)
        opt.step()
        opt.zero_grad()
        sharpness_aware_step(theirs, base, x, y, 0.1)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("check", BATTERY, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["sam", "friendlysam", "looksam"])
def test_battery(name, check):
    check(lambda model: MAKERS[name](momentum_and_adam(model), model=model))


@pytest.mark.parametrize("name", METHODS)
def test_stop_and_resume_to_the_bit(name):
    def make(model):
        return MAKERS[name](momentum_and_adam(model), model=model)

    data, whole = batches(6), Net()
    opt = make(whole)
    for x, y in data:
        turn(opt, whole, x, y)
        opt.step()
        opt.zero_grad()
    first, second = Net(), Net(seed=3)
    opt = make(first)
    for x, y in data[:3]:
        turn(opt, first, x, y)
        opt.step()
        opt.zero_grad()
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["model"])
    opt = make(second)
    opt.load_state_dict(saved["opt"])
    for x, y in data[3:]:
        turn(opt, second, x, y)
        opt.step()
        opt.zero_grad()
    assert bits(second) == bits(whole)


def test_groups_and_schedulers():
    """Each base has its own groups and schedules; one on the method moves all of them."""
    model = Net()
    one, two = momentum_and_adam(model)
    opt = SAM([one, two], model=model, rho=0.1)
    assert opt.base.optimizers == [one, two]
    assert [g["lr"] for g in opt.param_groups] == [0.05, 0.01]
    assert opt.param_groups[0] is one.param_groups[0]
    assert opt.param_groups is opt.base.param_groups
    own = torch.optim.lr_scheduler.StepLR(one, 1, gamma=0.5)
    both = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.1)
    radius = RhoScheduler(opt, rho_min=0.01, lr_min=0.0)
    turn(opt, model)
    opt.step()
    own.step()
    both.step()
    radius.step()
    assert [g["lr"] for g in opt.param_groups] == pytest.approx([0.0025, 0.001])
    assert all(0.01 <= g["rho"] < 0.1 for g in opt.param_groups)


def test_groups_have_radii_of_their_own():
    model = Net()
    opt = SAM(momentum_and_adam(model), model=model, rho=0.1)
    opt.param_groups[1]["rho"] = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    for objective in opt.passes():
        if not objective.is_ascent:
            moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        objective(model(X), Y).backward()
    assert moved == [p.ndim == 2 for p in model.parameters()]
    assert opt.last.norm == pytest.approx(0.1, rel=1e-9)


def test_a_new_group_names_its_optimizer():
    model = Net()
    one, two = torch.optim.SGD(model.first.parameters(), lr=0.1), torch.optim.AdamW(model.norm.parameters(), lr=0.01)
    opt = FriendlySAM([one, two], model=model, rho=0.1)
    turn(opt, model)
    opt.step()
    opt.zero_grad()
    with pytest.raises(ValueError, match=r"optimizer=None.*say whose group"):
        opt.add_param_group({"params": list(model.head.parameters())})
    opt.add_param_group({"params": list(model.head.parameters()), "optimizer": two, "lr": 0.5})
    assert len(two.param_groups) == 2
    assert two.param_groups[1]["rho"] == 0.1
    assert two.param_groups[1]["sharpness_steps"] == 1
    before = model.head.weight.detach().clone()
    turn(opt, model)
    opt.step()
    assert not torch.equal(model.head.weight, before)


def test_state_is_read_and_written_where_it_belongs():
    """Engines move an optimizer's state to a device: ``optimizer.state[p] = ...``."""
    model = Net()
    one, two = momentum_and_adam(model)
    opt = SAM([one, two], model=model)
    turn(opt, model)
    opt.step()
    assert set(opt.state) == set(one.state) | set(two.state)
    assert len(opt.state) == len(one.state) + len(two.state)
    for param, kept in list(opt.state.items()):
        opt.state[param] = {key: value.clone() for key, value in kept.items() if isinstance(value, torch.Tensor)}
    assert "momentum_buffer" in one.state[model.head.weight]
    assert "exp_avg" in two.state[model.head.bias]
    assert opt.state[model.head.bias] is two.state[model.head.bias]
    del opt.state[model.head.bias]
    assert model.head.bias not in two.state
    assert model.head.bias not in opt.state
    with pytest.raises(KeyError):
        _ = opt.state[nn.Parameter(torch.zeros(1))]


def test_copies_and_pickles_drive_their_own():
    model = Net()
    opt = BiSAM(momentum_and_adam(model), model=model)
    turn(opt, model)
    opt.step()
    opt.zero_grad()
    for twin_model, twin in (copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))):
        before = bits(model)
        turn(twin, twin_model)
        twin.step()
        assert bits(model) == before
        assert bits(twin_model) != before


def test_unwrapping_gives_all_of_them_back():
    model = Net()
    pair = momentum_and_adam(model)
    keys = [set(g) for o in pair for g in o.param_groups], [set(o.defaults) for o in pair]
    opt = SAM(pair, model=model)
    assert opt.unwrap().optimizers == pair
    assert keys == ([set(g) for o in pair for g in o.param_groups], [set(o.defaults) for o in pair])
    SAM(pair, model=model)


def test_momentum_of_each_kind_is_found():
    """MomentumSAM reads SGD's buffer and Adam's first moment, each from its own optimizer."""
    model = Net()
    opt = MomentumSAM(momentum_and_adam(model), model=model, rho=0.3)
    for x, y in batches(2):
        before = [p.detach().clone() for p in model.parameters()]
        for objective in opt.passes():
            moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    trained = [p.requires_grad and p is not model.unused for p in model.parameters()]
    assert moved == trained


@pytest.mark.parametrize(
    ("bases", "error", "match"),
    [
        (lambda m: [], ValueError, r"base=\[\] holds no optimizer"),
        (lambda m: [torch.optim.SGD(m.parameters(), lr=0.1)] * 2, ValueError, "one optimizer twice"),
        (
            lambda m: [torch.optim.SGD(m.parameters(), lr=0.1), torch.optim.SGD(m.head.parameters(), lr=0.1)],
            ValueError,
            r"base\[0\] and base\[1\] share a parameter of shape \(4, 8\)",
        ),
        (lambda m: [torch.optim.SGD(m.parameters(), lr=0.1), "adamw"], TypeError, r"base\[1\]='adamw' must be"),
        (lambda m: [SAM(torch.optim.SGD(m.parameters(), lr=0.1))], TypeError, r"base\[0\] is a SAM already"),
        (lambda m: [torch.optim.Adadelta(m.parameters())], ValueError, r"base\[0\]=Adadelta has a rho"),
        (lambda m: list(m.parameters()), TypeError, "bisam.compat.SAM"),
    ],
)
def test_what_is_refused(bases, error, match):
    model = Net()
    with pytest.raises(error, match=match):
        SAM(bases(model), model=model)


def test_two_without_a_list_say_how():
    model = Net()
    with pytest.raises(TypeError, match=r"SAM got 2 optimizers: pass them in a list, SAM\(\[a, b\]"):
        SAM(*momentum_and_adam(model))


def test_a_checkpoint_of_another_number_of_groups_is_refused():
    model = Net()
    opt = SAM(momentum_and_adam(model), model=model)
    with pytest.raises(ValueError, match="state_dict has 1 param groups and base has 2"):
        opt.load_state_dict(SAM(torch.optim.SGD(Net().parameters(), lr=0.1)).state_dict())


def test_rho_zero_is_the_two_of_them():
    ours, theirs = Net(), Net()
    opt, base = SAM(momentum_and_adam(ours), model=ours, rho=0.0), Both(momentum_and_adam(theirs))
    for x, y in batches(5):
        turn(opt, ours, x, y)
        opt.step()
        opt.zero_grad()
        cross_entropy(theirs(x), y).backward()
        base.step()
        base.zero_grad()
    assert bits(ours) == bits(theirs)
