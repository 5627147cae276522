"""The lower bound for one logit and for several labels: two classes with the logits (0, z)."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisam import BinaryLowerBoundLoss, LowerBoundLoss
from bisam.functional import binary_lower_bound_loss, lower_bound_loss
from tests.losses.problems import every_bound

MUS = pytest.mark.parametrize("mu", [None, 1e-6, 0.3, 10.0, 1e4])


def two_classes(z, target, **choices):
    """The same problem for :func:`lower_bound_loss`."""
    pair = torch.stack([torch.zeros_like(z), z], -1).reshape(-1, 2)
    rows = torch.stack([1 - target, target], -1).reshape(-1, 2).to(z.dtype)
    return lower_bound_loss(pair, rows, reduction="none", **choices).reshape(z.shape)


@every_bound
@MUS
def test_is_the_bound_of_two_classes(bound, mu):
    torch.manual_seed(0)
    z = (8 * torch.randn(4, 3, dtype=torch.float64)).requires_grad_()
    for target in (torch.randint(2, (4, 3)), torch.rand(4, 3, dtype=torch.float64)):
        ours = binary_lower_bound_loss(z, target, bound=bound, mu=mu, reduction="none")
        theirs = two_classes(z, target, bound=bound, mu=mu)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        weight = torch.randn(4, 3, dtype=torch.float64)
        (a,) = torch.autograd.grad((ours * weight).sum(), z)
        (b,) = torch.autograd.grad((theirs * weight).sum(), z)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


@every_bound
def test_gradients_are_right_twice_and_reach_the_target(bound):
    torch.manual_seed(1)
    z = torch.randn(6, dtype=torch.float64, requires_grad=True)
    share = torch.rand(6, dtype=torch.float64).mul(0.9).add(0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, p: binary_lower_bound_loss(f, p, bound=bound), (z, share))
    assert torch.autograd.gradgradcheck(lambda f, p: binary_lower_bound_loss(f, p, bound=bound), (z, share))


@every_bound
@given(z=st.floats(-1e4, 1e4, width=32), y=st.integers(0, 1), mu=st.sampled_from([None, 1e-7, 0.1, 1.0, 300.0]))
def test_never_above_the_error(bound, z, y, mu):
    value = binary_lower_bound_loss(torch.tensor([z]), torch.tensor([y]), bound=bound, mu=mu)
    assert value <= float(z > 0 if y == 0 else z < 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_is_computed_in_float32_also_under_autocast(dtype):
    z = torch.tensor([3.0, -1.0, 50.0, -0.125], dtype=dtype, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 0.0, 0.3])
    with torch.autocast("cpu", torch.bfloat16):
        value = binary_lower_bound_loss(z, target, reduction="none")
        value.sum().backward()
    assert value.dtype == torch.float32
    assert z.grad.dtype == dtype
    wide = z.detach().double().requires_grad_()
    expected = two_classes(wide, target.double())
    expected.sum().backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(z.grad, wide.grad.to(dtype), rtol=1e-2 if dtype != torch.float32 else 1e-5, atol=1e-6)


def test_small_gradients_survive():
    """-log, mu = 10, margin 5: about 5e-20."""
    z = torch.tensor([5.0], requires_grad=True)
    binary_lower_bound_loss(z, torch.tensor([1.0]), mu=10.0).backward()
    wide = torch.tensor([[0.0, 5.0]], dtype=torch.float64, requires_grad=True)
    lower_bound_loss(wide, torch.tensor([1]), mu=10.0).backward()
    assert 1e-21 < z.grad.abs() < 1e-18
    torch.testing.assert_close(z.grad[0].double(), wide.grad[0, 1], rtol=1e-4, atol=0)


@every_bound
def test_infinities_and_nan(bound):
    inf = torch.inf
    z = torch.tensor([inf, -inf, inf, -inf, torch.nan], requires_grad=True)
    for target in (torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])):
        value = binary_lower_bound_loss(z, target, bound=bound, reduction="none")
        assert value[:4].isfinite().all()
        assert (value[:2] > 0.2).all()  # surely wrong
        assert (value[2:4] < 0).all()
        assert value[4].isnan()
        (gradient,) = torch.autograd.grad(value[:4].sum(), z)
        assert gradient[:4].isfinite().all()


def test_the_module_is_the_function():
    torch.manual_seed(2)
    z, target = torch.randn(5, 3), torch.rand(5, 3)
    loss = BinaryLowerBoundLoss("tanh", mu=3.0, alpha=0.2)
    assert loss(z, target) == binary_lower_bound_loss(z, target, bound="tanh", mu=3.0, alpha=0.2)
    assert BinaryLowerBoundLoss(reduction="none")(z, target).shape == (5, 3)
    assert BinaryLowerBoundLoss(reduction="sum")(z, target) == binary_lower_bound_loss(z, target, reduction="sum")
    for labels in (target > 0.5, (target > 0.5).int(), (target > 0.5).float()):
        assert loss(z, labels) == binary_lower_bound_loss(z, target > 0.5, bound="tanh", mu=3.0, alpha=0.2)
    assert "mu=3.0" in repr(loss)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(z, target) == loss(z, target)
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([-1.0, 1.0]), ["-1 to 1", "(target + 1) / 2"]),
        (torch.tensor([0, 2]), ["0 to 2", "bisam.LowerBoundLoss()"]),
        (torch.tensor([0.3, 7.5]), ["7.5", "SAM or ASAM"]),
        (torch.tensor([0.3, torch.nan]), ["nan"]),
    ],
)
@pytest.mark.parametrize("loss", [binary_lower_bound_loss, BinaryLowerBoundLoss()])
def test_labels_outside_0_and_1_are_refused(loss, target, words):
    for _ in range(2):  # a refusal is no look that was passed
        with pytest.raises(ValueError, match="binary labels are 0 or 1") as caught:
            loss(torch.zeros(2), target)
        for word in words:
            assert word in str(caught.value)


@pytest.mark.parametrize("loss", [binary_lower_bound_loss, BinaryLowerBoundLoss()])
def test_shapes_and_types_are_refused_in_every_call(loss):
    loss(torch.zeros(4), torch.zeros(4))
    for z, target, words in (
        (torch.zeros(4, 1), torch.zeros(4), r"\(4,\).*\(4, 1\).*target\.reshape\(logits\.shape\)"),
        (torch.zeros(4, 3), torch.zeros(4), r"\(4,\).*\(4, 3\).*LowerBoundLoss"),
        (torch.zeros(4), torch.zeros(4, device="meta"), r"meta.*target\.to"),
    ):
        with pytest.raises(ValueError, match=words):
            loss(z, target)
    for z, target, words in (
        (torch.zeros(4, dtype=torch.long), torch.zeros(4), "logits of dtype torch.int64"),
        (torch.zeros(4), [0, 0, 0, 0], "target of type list"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.complex64), "complex64"),
    ):
        with pytest.raises(TypeError, match=words):
            loss(z, target)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo itself, in torch 2.6
def test_meta_vmap_and_compile():
    z = torch.empty(4, 3, device="meta", requires_grad=True)
    binary_lower_bound_loss(z, torch.empty(4, 3, device="meta")).backward()
    assert z.grad.shape == (4, 3)
    z, target, loss = torch.randn(5, 3), torch.rand(5, 3), BinaryLowerBoundLoss()
    torch.testing.assert_close(
        torch.func.vmap(loss)(z, target), BinaryLowerBoundLoss(reduction="none")(z, target).mean(1)
    )
    each = torch.func.vmap(torch.func.grad(loss))(z, target)
    assert each.shape == (5, 3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    compiled(ours, target).backward()
    loss(theirs, target).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(each * 3 / 15, theirs.grad)


def test_saves_the_logits_and_the_target_alone():
    saved = []
    z, target = torch.randn(8, 10, requires_grad=True), torch.rand(8, 10)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        binary_lower_bound_loss(z, target, reduction="sum")
    assert {t.data_ptr() for t in saved} == {z.data_ptr(), target.data_ptr()}


def test_two_logits_and_one_logit_are_one_problem():
    """A head of two logits (a, b) and its difference as one logit have the same bound."""
    torch.manual_seed(3)
    two, y = torch.randn(6, 2, dtype=torch.float64), torch.randint(2, (6,))
    one = two[:, 1] - two[:, 0]
    torch.testing.assert_close(BinaryLowerBoundLoss()(one, y), LowerBoundLoss()(two, y))
