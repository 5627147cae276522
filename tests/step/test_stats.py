"""The numbers for the log: the descent loss at w and the output at w, for every method."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import GSAM, SAM, BiSAM, LowerBoundLoss
from bisam.testing import Net, batches
from tests.makers import MAKERS, UNDER_EACH_ASCENT, each_ascent
from tests.step.test_estimator import FirstStep
from tests.steps import NEEDS_THIRD_PASS, X, Y, sgd, turn

ONE_PASS = ("momentumsam", "asyncsam")


@pytest.mark.parametrize("case", UNDER_EACH_ASCENT, ids=each_ascent)
def test_loss_and_output_at_w(case):
    """They are those of a copy of the model that runs forward before the step, in training mode."""
    name, foreign = case
    model = Net()
    more = {"ascent": LowerBoundLoss()} if foreign else {}
    if foreign and name in NEEDS_THIRD_PASS:
        more["third_pass"] = True
    opt = MAKERS[name](sgd(model), model=model, rho=0.1, **more)
    for step, (x, y) in enumerate(batches(4)):
        out = copy.deepcopy(model)(x).detach()
        turn(opt, model, x, y)
        if name in ONE_PASS and step > 0:  # their one pass runs at w + eps
            assert opt.last.loss is None
            assert opt.last.output is None
        elif name not in ONE_PASS:
            torch.testing.assert_close(opt.last.loss, cross_entropy(out, y), rtol=1e-12, atol=0)
            assert torch.equal(opt.last.output, out)
            assert not opt.last.loss.requires_grad
            assert opt.last.loss.dim() == 0
        opt.step()
        opt.zero_grad()


def test_steps_without_a_perturbation_tell_them_too():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=FirstStep())
    for x, y in batches(3):
        expected = cross_entropy(copy.deepcopy(model)(x), y).item()
        turn(opt, model, x, y)
        assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)
        opt.step()
        opt.zero_grad()


def test_the_descent_objective_is_ones_own():
    """BiSAM's loss at w is its descent objective's, here with label smoothing, not plain cross-entropy."""
    model, smooth = Net(), nn.CrossEntropyLoss(label_smoothing=0.1)
    opt = BiSAM(sgd(model), model=model, descent=smooth)
    expected = smooth(copy.deepcopy(model)(X), Y).item()
    turn(opt, model)
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)


def test_an_output_that_is_no_tensor():
    class Output(dict):
        @property
        def logits(self):
            return self["logits"]

    model = Net()

    def loss(output, target):
        return cross_entropy(output["logits"], target)

    def bound(output, target):
        return LowerBoundLoss()(output["logits"], target)

    for holder in (dict, Output):
        opt = SAM(sgd(model), model=model, ascent=bound, descent=loss)
        expected = cross_entropy(copy.deepcopy(model)(X), Y).item()
        for objective in opt.passes():
            objective(holder(logits=model(X)), Y).backward()
        assert opt.last.output is None
        if holder is dict:
            assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)
        else:
            assert opt.last.loss is None  # nobody can say what such an object holds of the graph
        opt.zero_grad()


def test_before_the_first_step_and_where_a_loop_was_left():
    model = Net()
    opt = SAM(sgd(model), model=model)
    assert opt.last.loss is None
    assert opt.last.output is None
    for objective in opt.passes():
        objective(model(X), Y).backward()
        break
    assert opt.last.loss.item() == pytest.approx(cross_entropy(Net()(X), Y).item(), rel=1e-12)


@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_it_keeps_no_graph(method):
    tokens = []

    class Token:
        pass

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.token = Token()  # lives as long as the graph
            tokens.append(weakref.ref(ctx.token))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    model = Net()
    opt = method(sgd(model), model=model)
    gc.disable()  # no cycle may hold it
    try:
        for _ in range(2):  # the first step looks at the graph
            for objective in opt.passes():
                objective(Marked.apply(model(X)), Y).backward()
            opt.step()
            opt.zero_grad()
        assert opt.last.output.grad_fn is None
        assert [token() for token in tokens] == [None] * 4
    finally:
        gc.enable()


def test_the_optimizer_is_not_kept_alive_by_its_last_numbers():
    model = Net()
    opt = BiSAM(sgd(model), model=model)
    turn(opt, model)
    last, gone = opt.last, weakref.ref(opt)
    gc.disable()
    try:
        del opt
        assert gone() is None
    finally:
        gc.enable()
    assert last.loss.item() > 0


def test_gsam_with_a_third_pass_counts_its_first():
    model = Net()
    opt = GSAM(sgd(model), model=model, ascent=LowerBoundLoss(), third_pass=True)
    expected = cross_entropy(copy.deepcopy(model)(X), Y).item()
    turn(opt, model)
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)
    assert opt.last.ascent_value < 1


def test_a_history_of_steps_holds_numbers_and_no_outputs():
    model = Net()
    opt, history = BiSAM(sgd(model), model=model), []
    for x, y in batches(4):
        for objective in opt.passes():
            out = model(x)
            objective(out, y).backward()
        opt.step()
        opt.zero_grad()
        history.append((opt.last, opt.last.loss.item(), opt.last.ascent_value))

    for last, loss, climbed in history:
        assert last.loss.item() == loss  # it was read
        assert last.ascent_value == climbed
    assert [last.output is None for last, _, _ in history] == [True, True, True, False]
