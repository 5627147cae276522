"""The fast path equals the general one and the paper, everywhere; and what it costs, counted."""

import contextlib
import math

import pytest
import torch
from hypothesis import given
from torch import nn
from torch.autograd import forward_ad

from bisam.bounds import LogBound, RampBound, ShiftedBound, SoftsignBound, TanhBound, as_bound
from bisam.functional import lower_bound_loss, zero_one_loss
from bisam.losses import _fast, _sweeps, functional
from bisam.losses._autograd import LowerBound
from bisam.testing import count_operations
from tests.losses.problems import Arctan, problems
from tests.reference.bounds import PHI, lower_bound, lower_bound_gradient

FAST = [*PHI, TanhBound(3.0), RampBound(0.7), SoftsignBound(20.0), ShiftedBound(LogBound(), 2.0)]
every_fast = pytest.mark.parametrize("bound", FAST, ids=repr)
NAMED = pytest.mark.parametrize("name", list(PHI))


@pytest.fixture
def taken(monkeypatch):
    """How often the fast path has returned a value."""
    calls = []

    def spied(*args):
        value = _fast.fast_lower_bound(*args)
        calls.append(value is not None)
        return value

    monkeypatch.setattr(functional, "fast_lower_bound", spied)
    return calls


def general(logits, target, bound, reduction="mean", ignore_index=-100):
    bound = as_bound(bound)
    value = LowerBound.apply(logits, target, bound, bound.mu, ignore_index)
    if reduction == "none":
        return value
    return value.sum() / ((target != ignore_index).sum().clamp(min=1) if reduction == "mean" else 1)


def both(logits, target, bound, reduction="mean", weight=None):
    """Values and gradients of the fast and the general path."""
    found = []
    for loss in (lower_bound_loss, general):
        f = logits.detach().clone().requires_grad_()
        value = loss(f, target, bound=bound, reduction=reduction)
        (value if weight is None else value * weight).sum().backward()
        found.append((value.detach(), f.grad))
    return found


# -- equal to the paper and to the general path ------------------------------------------------------------------------


@NAMED
def test_equals_the_papers_value_and_closed_form(name, taken):
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 6
    ours = logits.clone().requires_grad_()
    value = lower_bound_loss(ours, target, bound=name)
    value.backward()
    torch.testing.assert_close(value, lower_bound(logits, target, name), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(ours.grad, lower_bound_gradient(logits, target, name), rtol=1e-10, atol=1e-15)
    assert taken == [True]


@every_fast
@pytest.mark.parametrize("block", [1, 40, 2**19])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_general_path(bound, block, reduction, dtype, monkeypatch, taken):
    monkeypatch.setattr(_fast, "_BLOCK", block)
    torch.manual_seed(1)
    logits, target = (3 * torch.randn(9, 13)).to(dtype), torch.randint(13, (9,))
    target[4] = -100
    weight = torch.rand(9) if reduction == "none" else torch.tensor(0.37)
    (value, slope), (expected, right) = both(logits, target, bound, reduction, weight)
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=2e-6)
    exact = dtype in (torch.float64, torch.float32)
    torch.testing.assert_close(slope, right, **({"rtol": 3e-5, "atol": 1e-9} if exact else {}))
    assert slope.dtype == dtype
    assert (slope[4] == 0).all()
    assert taken == [True]


@every_fast
@pytest.mark.parametrize("shape", [(5,), (4, 5, 3), (2, 5, 3, 2)])
def test_equals_the_general_path_in_other_shapes(bound, shape):
    torch.manual_seed(2)
    logits = torch.randn(shape)
    target = torch.randint(5, shape[:1] + shape[2:] if len(shape) > 1 else ())
    for reduction in ("mean", "none"):
        ours = logits.clone().requires_grad_()
        value = lower_bound_loss(ours, target, bound=bound, reduction=reduction)
        value.sum().backward()
        assert value.shape == (target.shape if reduction == "none" else ())
        flat, labels = logits.movedim(1 if len(shape) > 1 else 0, -1).reshape(-1, 5), target.reshape(-1)
        (expected, right), _ = both(flat, labels, bound, reduction)
        torch.testing.assert_close(value.reshape(-1), expected.reshape(-1))
        torch.testing.assert_close(ours.grad.movedim(1 if len(shape) > 1 else 0, -1).reshape(-1, 5), right)


@every_fast
@given(problem=problems())
def test_equals_the_general_path_at_the_extremes(bound, problem):
    (value, slope), (expected, right) = both(*problem, bound, "none")
    torch.testing.assert_close(value, expected, rtol=5e-6, atol=5e-6)
    torch.testing.assert_close(slope, right, rtol=1e-4, atol=1e-12)
    assert (value <= zero_one_loss(*problem, reduction="none")).all()


@every_fast
@pytest.mark.parametrize("rows", [[[-math.inf, 1.0, 0.0]], [[math.inf, 0.0, math.inf]], [[-math.inf, -math.inf, 2.0]]])
def test_equal_infinities_have_margin_0(bound, rows):
    logits, target = torch.tensor([[1.0, 2.0, 0.0], *rows]), torch.tensor([1, 0])
    (value, slope), (expected, right) = both(logits, target, bound, "none")
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, right)
    assert value.isfinite().all()
    assert slope.isfinite().all()


@every_fast
def test_ignored_rows_may_hold_anything_and_kept_ones_show_nan(bound):
    logits = torch.tensor([[math.nan, 1.0, 0.0], [math.inf, 0.0, -math.inf], [0.0, 2.0, -math.inf]])
    (value, slope), _ = both(logits, torch.tensor([-100, -100, 0]), bound)
    (alone, right), _ = both(logits[2:], torch.tensor([0]), bound)
    torch.testing.assert_close(value, alone)
    torch.testing.assert_close(slope, torch.cat([torch.zeros(2, 3), right]))
    (value, slope), _ = both(logits, torch.tensor([1, -100, 0]), bound, "none")
    assert value.isnan().tolist() == [True, False, False]
    assert slope.isnan().any(1).tolist() == [True, False, False]


@every_fast
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_device_that_is_not_looked_at_gets_the_same(bound, dtype, reduction, monkeypatch, taken):
    """What a GPU does, on the CPU: equal infinities, ignored rows and lost classes without a look."""
    monkeypatch.setattr(_fast, "_looks", lambda tensor: False)
    inf, nan = math.inf, math.nan
    rows = [[1.0, 2.0, 0.0], [-inf, -inf, 2.0], [inf, 0.0, inf], [-inf, 1.0, 0.0], [nan, inf, 0.0], [-200.0, 0.5, -inf]]
    logits, target = torch.tensor(rows, dtype=dtype), torch.tensor([2, 0, 0, 1, -100, 1])
    (value, slope), (expected, right) = both(logits, target, bound, reduction)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, right)
    assert taken == [True]


# -- digits ------------------------------------------------------------------------------------------------------------


@NAMED
@pytest.mark.parametrize("margin", [5.0, 20.0, 60.0, 80.0, -5.0, -20.0, -60.0, -150.0])
def test_slopes_keep_their_digits_in_both_tails(name, margin):
    logits = torch.tensor([[margin, 0.0]])
    (_, slope), _ = both(logits, torch.tensor([0]), name)
    _, (_, right) = both(logits.double(), torch.tensor([0]), name)
    torch.testing.assert_close(slope.double(), right, rtol=1e-5, atol=1e-38)


@NAMED
def test_a_common_shift_of_300_costs_no_digit_beyond_those_of_the_logits(name):
    torch.manual_seed(3)
    logits, target = 300 + torch.randn(20, 50), torch.randint(50, (20,))
    (value, slope), _ = both(logits, target, name)
    _, (expected, right) = both(logits.double(), target, name)
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=2e-7)
    torch.testing.assert_close(slope.double(), right, rtol=5e-6, atol=0)


@pytest.mark.parametrize("name", ["log", "tanh", "ramp", "softsign"])
@pytest.mark.parametrize("classes", [2, 3, 7, 10, 33, 999, 1000, 50257])
def test_uniform_logits_read_exactly_zero_and_rows_without_a_mistake_no_more(name, classes):
    for level in (0.0, 1.7, -300.0):
        assert lower_bound_loss(torch.full((2, classes), level), torch.tensor([0, classes - 1]), bound=name) == 0
    for scale in (1e-9, 1e-7, 1e-5, 1e-3, 1.0):
        logits = -scale * torch.rand(4, classes)
        logits[:, 1] = 0
        value = lower_bound_loss(logits, torch.ones(4, dtype=torch.long), bound=name, reduction="none")
        assert (value <= 0).all()


# -- which path --------------------------------------------------------------------------------------------------------


class Own(TanhBound):
    def phi(self, x):
        return 0.5 * super().phi(x)

    def slope(self, x):
        return 0.5 * super().slope(x)


@pytest.mark.parametrize(("bound", "mu"), [(Arctan(), None), (Own(), None), (ShiftedBound(Own()), None)], ids=repr)
def test_a_bound_of_ones_own_takes_the_general_path(bound, mu, taken):
    torch.manual_seed(4)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    (value, slope), (expected, right) = both(logits, target, bound)
    assert taken == [False]
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.testing.assert_close(slope, right, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("bound", "mu", "fast"),
    [
        ("log", 1, True),
        ("log", 2, False),
        ("tanh", 1, True),
        ("tanh", 60, True),
        ("tanh", 61, False),
        ("ramp", 0.5, False),
    ],
)
def test_other_mu_take_the_path_that_has_their_digits(bound, mu, fast, taken):
    lower_bound_loss(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), bound=bound, mu=mu)
    assert taken == [fast]


@NAMED
def test_transforms_see_the_general_path(name):
    torch.manual_seed(5)
    logits, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def loss(f):
        return lower_bound_loss(f, target, bound=name)

    x = logits.clone().requires_grad_()
    (right,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(torch.func.grad(loss)(logits), right)
    each = torch.autograd.functional.jacobian(
        lambda f: lower_bound_loss(f, target, bound=name, reduction="none"), logits, vectorize=True
    )
    torch.testing.assert_close(each.sum(0) / 4, right)
    value = loss(x)
    batched = torch.autograd.grad(value, x, torch.tensor([1.0, 2.0], dtype=torch.float64), is_grads_batched=True)[0]
    torch.testing.assert_close(batched, torch.stack([right, 2 * right]))


# -- the saved gradient ------------------------------------------------------------------------------------------------


def test_a_kept_graph_gives_the_same_gradient_again_whatever_became_of_the_first():
    torch.manual_seed(6)
    logits, target = torch.randn(6, 4, requires_grad=True), torch.randint(4, (6,))
    value = lower_bound_loss(logits, target)
    value.backward(retain_graph=True)
    first = logits.grad.clone()
    logits.grad.mul_(100.0)
    logits.grad = None
    value.backward(retain_graph=True)
    assert torch.equal(logits.grad, first)
    logits.grad = None
    (2.5 * value).backward()
    torch.testing.assert_close(logits.grad, 2.5 * first)


def test_float16_gradients_survive_until_the_loss_is_scaled():
    logits, target = torch.tensor([[20.0, 0.0]], dtype=torch.float16, requires_grad=True), torch.tensor([0])
    (2.0**24 * lower_bound_loss(logits, target)).backward()
    exact = torch.tensor([[20.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (2.0**24 * lower_bound_loss(exact, target)).backward()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-3, atol=0)


def test_logits_that_changed_before_a_second_derivative_are_told():
    logits = torch.randn(3, 4, requires_grad=True)
    inner = logits * 1
    value = lower_bound_loss(inner, torch.tensor([0, 1, 2]))
    inner.data.add_(0)  # not seen
    with torch.no_grad():
        inner.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


# -- what it costs, counted --------------------------------------------------------------------------------------------


@NAMED
def test_peak_memory_is_below_cross_entropys(name):
    """Beside the logits: their gradient, and scratch tensors of a block; cross-entropy holds three of their size."""
    metered = pytest.importorskip("bisam_lab.bench.memory").metered  # the laboratory is not there on the oldest torch
    peaks = []
    for loss in (lambda f, y: lower_bound_loss(f, y, bound=name), nn.functional.cross_entropy):
        logits = torch.randn(4096, 2000, requires_grad=True)
        target = torch.randint(2000, (4096,))
        with metered(logits.device) as meter:
            loss(logits, target).backward()
            peaks.append(meter.peak / (logits.numel() * logits.itemsize))
        del logits
    assert peaks[0] < 2
    assert peaks[0] <= 1.3 * peaks[1]


@pytest.mark.parametrize(("name", "most"), [("log", 25), ("tanh", 28), ("ramp", 26), ("softsign", 28)])
def test_operations_of_a_small_batch(name, most):
    logits, target = torch.randn(128, 10, requires_grad=True), torch.randint(10, (128,))
    lower_bound_loss(logits, target, bound=name)  # makes its constants
    with count_operations() as counted:
        lower_bound_loss(logits, target, bound=name).backward()
    assert len(counted.names) <= most


def test_without_gradients_no_slope_is_computed():
    logits, target = torch.randn(64, 50, requires_grad=True), torch.randint(50, (64,))
    with count_operations() as with_slopes:
        lower_bound_loss(logits, target)
    with torch.no_grad(), count_operations() as without:
        value = lower_bound_loss(logits, target)
    assert len(without.names) < len(with_slopes.names) - 5
    assert value == lower_bound_loss(logits, target).detach()


# -- what else may look on ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch itself, in its first dual number
def test_forward_mode_is_refused_and_loses_no_tangent():
    with forward_ad.dual_level():
        logits = forward_ad.make_dual(torch.randn(3, 4), torch.randn(3, 4))
        with pytest.raises(RuntimeError, match="jvp"):
            lower_bound_loss(logits, torch.tensor([0, 1, 2]))


@NAMED
def test_a_default_device_is_not_remembered(name):
    """The constants are kept from the first call on, which may be made under any default."""
    logits, target = torch.randn(3, 4), torch.tensor([0, 1, 2])
    want = general(logits, target, name)
    for forget in (_fast._scalar, _sweeps._made):
        forget.cache_clear()
    for default in ("meta", None):
        with torch.device(default) if default else contextlib.nullcontext():
            value = lower_bound_loss(logits.clone().requires_grad_(), target, bound=name)
            value.backward()
        torch.testing.assert_close(value.detach(), want)
