"""State that forward() moves and that is no trained parameter: it moves once a step, as the first pass leaves it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import SAM, BiSAM
from bisam.testing import Net, count_around_passes
from tests.steps import X, Y, sgd, turn

#: Ways in which published momentum encoders move.
MOVES = {
    "no_grad": lambda k, q: k.mul_(0.9).add_(q, alpha=0.1),
    "copy_": lambda k, q: k.copy_(0.9 * k + 0.1 * q),
    "data": lambda k, q: k.data.mul_(0.9).add_(q.data, alpha=0.1),
    "rebound data": lambda k, q: setattr(k, "data", k.data * 0.9 + q.data * 0.1),
    "lerp": lambda k, q: torch._foreach_lerp_([k], [q], 0.1),
}


class Encoder(nn.Module):
    """MoCo's shape: a trained query encoder, a frozen key encoder that follows it, and a large frozen part if asked."""

    def __init__(self, move, extra=0):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(6, 4), nn.Linear(6, 4)
        self.key.requires_grad_(False)
        self.frozen = nn.Parameter(torch.zeros(extra), requires_grad=False)
        self.move = move
        self.double()

    def forward(self, x):
        with torch.no_grad():
            for k, q in zip(self.key.parameters(), self.query.parameters(), strict=True):
                self.move(k, q)
        return self.query(x) @ self.key(x).T.softmax(0) @ torch.ones(len(x), 4, dtype=x.dtype) * self.query(x)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_a_momentum_encoder_moves_once_a_step_and_follows_w(name, method):
    model = Encoder(MOVES[name])
    opt = method(sgd(model.query), model=model, rho=0.5)
    for _ in range(3):
        expected = [0.9 * k + 0.1 * q for k, q in zip(model.key.parameters(), model.query.parameters(), strict=True)]
        expected = [e.detach() for e in expected]
        turn(opt, model)
        for k, e in zip(model.key.parameters(), expected, strict=True):
            torch.testing.assert_close(k.detach(), e, rtol=1e-14, atol=1e-15)
        opt.step()
        opt.zero_grad()


@pytest.mark.parametrize("name", ["no_grad", "rebound data"])
def test_beside_a_large_frozen_part_only_what_moves_is_copied(name):
    """LoRA: a frozen network many times as large as what is trained is not copied in every step."""
    model = Encoder(MOVES[name], extra=100_000)
    opt = SAM(sgd(model.query), model=model, rho=0.5)
    turn(opt, model)  # the first step looks at the graph
    opt.step()
    opt.zero_grad()
    expected = [
        (0.9 * k + 0.1 * q).detach() for k, q in zip(model.key.parameters(), model.query.parameters(), strict=True)
    ]
    written = [gap.written for gap in count_around_passes(model, opt, X, Y)]
    assert 0 < sum(written) < 8 * 1000  # bytes; the frozen network has 800,000
    for k, e in zip(model.key.parameters(), expected, strict=True):
        torch.testing.assert_close(k.detach(), e, rtol=1e-14, atol=1e-15)


class Keeper(nn.Module):
    """Tensors in plain attributes: changed in place, replaced, made in the first forward pass, left alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4).double()
        self.changed, self.replaced, self.constant = torch.zeros(2), torch.zeros(2), torch.ones(2)
        self.made = None
        self.seen = torch.zeros(())

    def forward(self, x):
        self.changed += 1
        self.replaced = self.replaced + 1
        self.made = torch.ones(1) if self.made is None else self.made + 1
        self.hidden = self.linear(x)  # part of the graph: nobody's business
        return self.hidden * self.constant.mean()


def test_tensors_in_plain_attributes_move_once_a_step():
    model = Keeper()
    opt, constant = SAM(sgd(model), model=model, rho=0.1), model.constant
    for step in range(1, 4):
        turn(opt, model)
        assert model.changed.tolist() == [step, step]
        assert model.replaced.tolist() == [step, step]
        assert model.made.tolist() == [step]
        assert model.constant is constant
        opt.step()
        opt.zero_grad()


def test_what_the_last_pass_alone_changes_is_left_alone():
    """A metric that is counted where ``objective.is_ascent`` is false keeps its count."""
    model = Keeper()
    opt = SAM(sgd(model), model=model, rho=0.1)
    for objective in opt.passes():
        objective(model(X), Y).backward()
        if not objective.is_ascent:
            model.seen += len(X)
    assert model.seen == len(X)


def test_an_early_exit_in_the_last_pass_puts_it_back_too():
    model = Encoder(MOVES["no_grad"])
    opt = SAM(sgd(model.query), model=model, rho=0.5)
    expected = [
        (0.9 * k + 0.1 * q).detach() for k, q in zip(model.key.parameters(), model.query.parameters(), strict=True)
    ]
    for objective in opt.passes():
        objective(model(X), Y).backward()
        if not objective.is_ascent:
            break
    for k, e in zip(model.key.parameters(), expected, strict=True):
        torch.testing.assert_close(k.detach(), e, rtol=1e-14, atol=1e-15)


def test_one_pass_leaves_everything_to_forward():
    model = Encoder(MOVES["no_grad"])
    twin = copy.deepcopy(model)
    turn(SAM(sgd(model.query), model=model, rho=0.0), model)
    cross_entropy(twin(X), Y).backward()
    assert all(map(torch.equal, model.key.parameters(), twin.key.parameters()))


def test_numpy_and_python_draw_the_same_numbers_under_same_dropout():
    """SpecAugment draws its masks from numpy, in forward()."""
    import random

    import numpy as np

    for same in (True, False):
        model, drawn = Net(), []
        opt = SAM(sgd(model), model=model, same_dropout=same)
        for objective in opt.passes():
            drawn.append((np.random.rand(), random.random(), torch.rand(()).item()))
            objective(model(X), Y).backward()
        assert (drawn[0] == drawn[1]) is same
        later = np.random.rand(), random.random()
        assert later != drawn[0][:2]  # the generators go on after the step


def test_a_teacher_that_the_last_pass_alone_moves_keeps_its_move():
    """``if not objective.is_ascent: teacher.update()`` inside the loop."""
    model = Encoder(lambda k, q: None)
    opt, before = SAM(sgd(model.query), model=model, rho=0.5), model.key.weight.detach().clone()
    for objective in opt.passes():
        objective(model(X), Y).backward()
        if not objective.is_ascent:
            with torch.no_grad():
                model.key.weight.mul_(0.5)
    assert torch.equal(model.key.weight, 0.5 * before)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_any_kind_may_be_held():
    """Inference tensors have no version, sparse ones no storage, and neither has nested ones."""
    with torch.inference_mode():
        made = torch.ones(3)

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 4).double()
            self.made = made
            self.adjacency = nn.Parameter(torch.eye(4).double().to_sparse(), requires_grad=False)
            self.ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])

        def forward(self, x):
            return self.linear(x) @ self.adjacency.to_dense()

    model = Holds()
    opt = SAM(sgd(model.linear), model=model)
    for _ in range(3):
        turn(opt, model)
        opt.step()
        opt.zero_grad()
    assert model.made is made


def test_what_two_calls_a_pass_replace_is_put_back():
    """A freed tensor's address comes again: identity is by reference."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.seen = nn.Linear(6, 4).double(), torch.zeros(16, 4)

        def forward(self, x):
            for _ in range(2):
                out = self.linear(x)
                self.seen = out.tanh().detach()
            return out

    for _ in range(10):
        model = Twice()
        opt = SAM(sgd(model), model=model, rho=0.5)
        expected = model.linear(X).tanh().detach()
        turn(opt, model)
        assert torch.equal(model.seen, expected)


@pytest.mark.parametrize("moves", [False, True])
def test_tensors_made_in_inference_mode_move_once_a_step(moves):
    """Prototypes, say, that were computed there: outside of it nobody can write them."""

    class Counts(nn.Linear):
        def __init__(self):
            super().__init__(6, 4)
            with torch.inference_mode():
                self.register_buffer("seen", torch.zeros(1))
                self.kept = torch.zeros(1)

        def forward(self, x):
            if moves:
                with torch.inference_mode():
                    self.seen += 1
                    self.kept += 1
            return super().forward(x)

    model = Counts().double()
    with torch.inference_mode():
        model.seen, model.kept = torch.zeros(1), torch.zeros(1)
    opt = SAM(sgd(model), model=model)
    for _ in range(3):
        turn(opt, model)
    assert opt.last.perturbed
    assert (model.seen.item(), model.kept.item()) == ((3, 3) if moves else (0, 0))
