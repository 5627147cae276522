"""The closed-form gradient of the lower bound: right twice, small in memory, compiled."""

import pytest
import torch

from bisam import LowerBoundLoss
from bisam.functional import binary_lower_bound_loss, lower_bound_loss, zero_one_loss
from tests.losses.problems import Arctan, every_bound


@every_bound
def test_gradcheck_twice(bound):
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, -100, 1, 2])
    share = torch.softmax(torch.randn(5, 4, dtype=torch.float64), 1).requires_grad_()
    for function, inputs in (
        (lambda f: lower_bound_loss(f, target, bound=bound), (logits,)),
        (lambda f, p: lower_bound_loss(f, p, bound=bound), (logits, share)),
        (lambda f: binary_lower_bound_loss(f[:, 0], target > 1, bound=bound), (logits,)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("bound", ["log", "tanh", "ramp", "softsign", "shifted-tanh"])
def test_second_derivatives_are_finite_where_classes_are_masked(bound):
    x = torch.tensor([[-torch.inf, 0.0, 1.0], [torch.inf, 0.0, 1.0]], requires_grad=True)
    (first,) = torch.autograd.grad(LowerBoundLoss(bound)(x, torch.tensor([1, 1])), x, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.tensor([1.0, 2.0, 3.0])).sum(), x)
    assert second.isfinite().all()


def test_small_gradients_survive_on_well_fitted_batches():
    """-log, mu = 10, margin 5: about 5e-20, in float32 and under autocast; float32 squares would vanish."""
    logits = torch.tensor([[5.0, 0.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        lower_bound_loss(logits, torch.tensor([0]), mu=10.0).backward()
    exact = torch.tensor([[5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    lower_bound_loss(exact, torch.tensor([0]), mu=10.0).backward()
    assert 1e-21 < exact.grad.abs().max() < 1e-18
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bound", ["log", "tanh", Arctan()], ids=repr)
def test_saves_at_most_one_tensor_beside_the_logits(bound):
    """The gradient of a named bound, as cross-entropy saves its log-probabilities; nothing of a bound of one's own."""
    saved = []
    logits, target = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        lower_bound_loss(logits, target, bound=bound, reduction="sum")
    beside = [t.numel() for t in saved if t.data_ptr() not in (logits.data_ptr(), target.data_ptr())]
    assert beside == ([] if isinstance(bound, Arctan) else [logits.numel()])


@every_bound
def test_probabilities_are_an_expectation_over_the_class(bound, monkeypatch):
    torch.manual_seed(3)
    logits, share = (
        torch.randn(2, 4, 3, dtype=torch.float64),
        torch.softmax(torch.randn(2, 4, 3, dtype=torch.float64), 1),
    )
    each = torch.stack(
        [lower_bound_loss(logits, torch.full((2, 3), y), bound=bound, reduction="none") for y in range(4)], 1
    )
    expected = (share * each).sum(1)
    torch.testing.assert_close(lower_bound_loss(logits, share, bound=bound, reduction="none"), expected)
    monkeypatch.setattr("bisam.losses._autograd._CHUNK", 1)  # one class at a time
    torch.testing.assert_close(lower_bound_loss(logits, share, bound=bound, reduction="none"), expected)
    wrong = torch.stack([zero_one_loss(logits, torch.full((2, 3), y), reduction="none") for y in range(4)], 1)
    torch.testing.assert_close(zero_one_loss(logits, share, reduction="none"), (share * wrong).sum(1))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo itself, in torch 2.6
@pytest.mark.parametrize("bound", ["log", "tanh", "ramp", "softsign", "shifted-tanh"])
def test_compiles_whole(bound):
    torch.manual_seed(4)
    loss, target = LowerBoundLoss(bound), torch.tensor([1, 0, 2, -100])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours, theirs = torch.randn(4, 3, requires_grad=True), None
    compiled(ours, target).backward()
    theirs = ours.detach().clone().requires_grad_()
    loss(theirs, target).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.filterwarnings("ignore")  # those of Dynamo and Inductor themselves, which differ from torch to torch
def test_compiles_with_inductor_and_with_a_bound_of_ones_own():
    target = torch.tensor([1, 0])
    for loss in (LowerBoundLoss("log"), LowerBoundLoss(Arctan())):
        logits = torch.randn(2, 3, requires_grad=True)
        value = torch.compile(loss)(logits, target)
        (ours,) = torch.autograd.grad(value, logits)
        (theirs,) = torch.autograd.grad(loss(logits, target), logits)
        torch.testing.assert_close(ours, theirs)
