"""The lower bound of the 0-1 loss: inequality, gradient, shapes, extremes, errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from bisam import Bound, LowerBoundLoss, ZeroOneLoss
from bisam.bounds import BOUNDS, LogBound, ShiftedBound, TanhBound, as_bound
from bisam.functional import binary_lower_bound_loss, lower_bound_loss, zero_one_loss
from bisam.testing import check_bound
from tests.reference.bounds import PHI, lower_bound


class Arctan(Bound):
    def phi(self, x):
        return torch.atan(x) / (torch.pi / 2)


EVERY = [*BOUNDS, Arctan(), ShiftedBound(LogBound(), 2.0), TanhBound(3.0)]
every_bound = pytest.mark.parametrize("bound", EVERY, ids=repr)


@st.composite
def problems(draw, dtype="float32"):
    """Logits (B, K) of any size up to 1e4 and -inf, with class targets."""
    rows, classes = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    width = 32 if dtype == "float32" else 64
    numbers = st.one_of(st.floats(-1e4, 1e4, width=width), st.floats(-2, 2, width=width), st.just(-math.inf))
    logits = draw(hnp.arrays(dtype, (rows, classes), elements=numbers))
    target = draw(hnp.arrays("int64", (rows,), elements=st.integers(0, classes - 1)))
    return torch.from_numpy(logits), torch.from_numpy(target)


# -- the inequality --------------------------------------------------------------------------------------------------


@every_bound
@given(problem=problems(), mu=st.sampled_from([None, 0.1, 1.0, 10.0, 300.0]))
def test_never_above_the_zero_one_loss(bound, problem, mu):
    logits, target = problem
    value = lower_bound_loss(logits, target, bound=bound, mu=mu, reduction="none")
    assert (value <= zero_one_loss(logits, target, reduction="none")).all()


@every_bound
@given(problem=problems())
def test_value_and_gradient_are_finite(bound, problem):
    logits, target = problem
    logits.requires_grad_()
    value = lower_bound_loss(logits, target, bound=bound)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.sum(1).abs().max() < 1e-5  # moving every logit alike changes nothing


@given(problem=problems("float64"))
def test_smoothed_maximum_is_within_log_k_of_the_maximum(problem):
    logits, target = problem
    value = lower_bound_loss(logits, target, bound="tanh", mu=10.0, reduction="none")
    margin = torch.where(logits == logits.gather(1, target[:, None]), 0, logits - logits.gather(1, target[:, None]))
    highest = torch.tanh(0.1 * margin).amax(1)
    assert (value <= highest).all()
    assert (value >= highest - math.log(logits.shape[1]) / 10 - 1e-12).all()


@every_bound
def test_every_bound_lies_below_the_step(bound):
    check_bound(as_bound(bound))


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (lambda x: torch.sigmoid(x), "above the 0-1 step"),
        (lambda x: torch.tanh(x) - (x > 1).to(x.dtype), "falls"),
        (lambda x: x / (1 + x.abs()), "NaN at"),
        (lambda x: torch.tanh(x).float(), "changes torch.float64"),
    ],
)
def test_check_bound_refuses(phi, message):
    wrong = type("Wrong", (Bound,), {"phi": lambda self, x: phi(x)})()
    with pytest.raises(AssertionError, match=message):
        check_bound(wrong)


def test_check_bound_refuses_a_wrong_slope():
    class Wrong(TanhBound):
        def slope(self, x):
            return 2 * super().slope(x)

    with pytest.raises(AssertionError, match="is not the derivative"):
        check_bound(Wrong())


# -- the gradient ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", PHI)
def test_equals_the_paper_class_by_class(name):
    torch.manual_seed(1)
    logits = 4 * torch.randn(6, 5, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    for mu in (None, 0.7, 5.0):
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        a, b = lower_bound_loss(ours, target, bound=name, mu=mu), lower_bound(theirs, target, name, mu)
        a.backward()
        b.backward()
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_uniform_logits_read_zero_not_log_k():
    assert lower_bound_loss(torch.zeros(3, 10), torch.tensor([0, 5, 9])) == 0


def test_small_gradients_survive_on_well_fitted_batches():
    """-log, mu = 10, margin 5: about 5e-20, in float32 and under autocast; float32 squares would vanish."""
    logits = torch.tensor([[5.0, 0.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        lower_bound_loss(logits, torch.tensor([0]), mu=10.0).backward()
    exact = torch.tensor([[5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    lower_bound_loss(exact, torch.tensor([0]), mu=10.0).backward()
    assert 1e-21 < exact.grad.abs().max() < 1e-18
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_float32(dtype):
    logits = torch.tensor([[3.0, -1.0, 0.5], [0.0, 100.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 2])
    value = lower_bound_loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.dtype == dtype
    assert value == lower_bound_loss(logits.detach().float(), target)


def test_saves_one_tensor_beside_the_logits():
    saved = []
    logits, target = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        lower_bound_loss(logits, target, reduction="sum")
    assert {t.data_ptr() for t in saved} == {logits.data_ptr(), target.data_ptr()}


# -- shapes and targets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_shapes_are_those_of_cross_entropy(reduction):
    torch.manual_seed(2)
    for shape in ((6, 5), (5,), (2, 5, 3), (2, 5, 3, 4)):
        logits = torch.randn(shape)
        target = torch.randint(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ())
        ours = lower_bound_loss(logits, target, reduction=reduction)
        assert ours.shape == nn.functional.cross_entropy(logits, target, reduction=reduction).shape
    flat = lower_bound_loss(torch.movedim(logits, 1, -1).reshape(-1, 5), target.reshape(-1), reduction="none")
    torch.testing.assert_close(lower_bound_loss(logits, target, reduction="none").reshape(-1), flat)


def test_ignored_samples_count_for_nothing():
    logits = torch.randn(4, 3).index_put((torch.tensor([1]),), torch.tensor(torch.nan)).requires_grad_()
    target = torch.tensor([0, 7, 2, 7])
    value = lower_bound_loss(logits, target, ignore_index=7)
    value.backward()
    assert value == lower_bound_loss(logits[[0, 2]].detach(), target[[0, 2]])
    assert (logits.grad[[1, 3]] == 0).all()
    assert zero_one_loss(logits, target, ignore_index=7) == zero_one_loss(logits[[0, 2]], target[[0, 2]])


@pytest.mark.parametrize("loss", [lower_bound_loss, zero_one_loss])
def test_nothing_but_ignored_samples(loss):
    logits = torch.randn(3, 4, requires_grad=True)
    value = loss(logits, torch.full((3,), -100))
    assert value == 0
    if loss is lower_bound_loss:
        value.backward()
        assert (logits.grad == 0).all()


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


@given(z=st.floats(-1e4, 1e4, width=32), share=st.floats(0, 1, width=32))
def test_binary_is_two_classes(z, share):
    for y in (0, 1):
        two = lower_bound_loss(torch.tensor([[0.0, z]]), torch.tensor([y]))
        for target in (torch.tensor([y]), torch.tensor([bool(y)]), torch.tensor([float(y)])):
            torch.testing.assert_close(binary_lower_bound_loss(torch.tensor([z]), target), two)
        assert two <= float((z > 0) != bool(y) and z != 0)
    mixed = binary_lower_bound_loss(torch.tensor([[z]]), torch.tensor([[share]]), reduction="none")
    assert mixed.shape == (1, 1)


def test_infinite_logits_of_the_target_and_of_masked_classes():
    inf = torch.inf
    logits = torch.tensor([[-inf, 1.0, 0.0], [-inf, -inf, 0.0], [0.0, -inf, 0.0], [inf, 0.0, 1.0]], requires_grad=True)
    value = lower_bound_loss(logits, torch.tensor([0, 0, 0, 0]), reduction="none")
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    assert zero_one_loss(logits, torch.tensor([0, 0, 0, 0]), reduction="none").tolist() == [1, 1, 0, 0]


def test_nan_is_a_mistake_and_not_hidden():
    logits = torch.tensor([[torch.nan, 1.0], [2.0, torch.nan]])
    assert zero_one_loss(logits, torch.tensor([0, 0])) == 1
    assert lower_bound_loss(logits, torch.tensor([0, 0])).isnan()


# -- compile, meta, vmap, modules ------------------------------------------------------------------------------------


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


def test_meta_and_vmap():
    logits = torch.empty(4, 3, device="meta", requires_grad=True)
    value = lower_bound_loss(logits, torch.empty(4, dtype=torch.long, device="meta"))
    value.backward()
    assert logits.grad.shape == (4, 3)
    many, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(
        torch.func.vmap(lambda f, y: lower_bound_loss(f, y))(many, target),
        lower_bound_loss(many, target, reduction="none"),
    )
    one = torch.func.vmap(torch.func.grad(lambda f, y: lower_bound_loss(f, y)))(many, target)
    assert one.shape == (5, 3)


def test_modules_are_the_functions():
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, -100])
    assert LowerBoundLoss("tanh", mu=3.0, alpha=0.2)(logits, target) == lower_bound_loss(
        logits, target, bound="tanh", mu=3.0, alpha=0.2
    )
    assert ZeroOneLoss()(logits, target) == zero_one_loss(logits, target)
    assert LowerBoundLoss("log").mu == 1.0
    assert LowerBoundLoss("tanh").mu == 10.0
    assert "LogBound" in repr(LowerBoundLoss())
    assert "reduction" in repr(ZeroOneLoss())


# -- errors ----------------------------------------------------------------------------------------------------------

F, Y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, ["target", "7", "0..2"], lambda: lower_bound_loss(F, torch.tensor([0, 7, 1, 2]))),
        (ValueError, ["target", "-1", "0..2"], lambda: lower_bound_loss(F, torch.tensor([0, -1, 1, 2]))),
        (ValueError, ["target", "7"], lambda: zero_one_loss(F, torch.tensor([0, 7, 1, 2]))),
        (ValueError, ["target", "(3,)", "(4,)"], lambda: lower_bound_loss(F, Y[:3])),
        (TypeError, ["target", "float32", "long()"], lambda: lower_bound_loss(F, Y.float())),
        (TypeError, ["target", "bool", "long()"], lambda: lower_bound_loss(F, Y > 1)),
        (TypeError, ["logits", "int64"], lambda: lower_bound_loss(Y[:, None], Y)),
        (ValueError, ["logits", "()"], lambda: lower_bound_loss(torch.tensor(1.0), torch.tensor(0))),
        (ValueError, ["logits", "no classes"], lambda: lower_bound_loss(torch.empty(4, 0), Y)),
        (ValueError, ["target", "meta", "cpu"], lambda: lower_bound_loss(F, Y.to("meta"))),
        (ValueError, ["mu=0", "greater than 0"], lambda: lower_bound_loss(F, Y, mu=0)),
        (ValueError, ["mu=nan"], lambda: LowerBoundLoss(mu=math.nan)),
        (TypeError, ["mu=True"], lambda: LowerBoundLoss(mu=True)),
        (TypeError, ["mu='x'", "text", "quotes"], lambda: LowerBoundLoss(mu="x")),
        (ValueError, ["alpha=-1"], lambda: lower_bound_loss(F, Y, bound="tanh", alpha=-1)),
        (ValueError, ["bound='huber'", "log, tanh"], lambda: lower_bound_loss(F, Y, bound="huber")),
        (TypeError, ["bound=3"], lambda: LowerBoundLoss(bound=3)),
        (ValueError, ["reduction='avg'", "'mean'"], lambda: lower_bound_loss(F, Y, reduction="avg")),
        (ValueError, ["reduction='avg'", "'mean'"], lambda: ZeroOneLoss(reduction="avg")),
        (ValueError, ["shift=-1"], lambda: ShiftedBound(TanhBound(), -1)),
        (ValueError, ["target", "(4,)", "(4, 3)"], lambda: binary_lower_bound_loss(F, Y)),
    ],
)  # fmt: skip
def test_errors_name_the_argument_the_value_and_the_remedy(error, words, call):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


@settings(max_examples=20)
@given(problem=problems())
def test_no_synchronisation_with_the_host(problem):
    from bisam.testing import count_operations

    logits, target = problem
    with count_operations() as counted:
        lower_bound_loss(logits.requires_grad_(), target).backward()
        zero_one_loss(logits, target)
    assert not {"_local_scalar_dense", "is_nonzero", "nonzero", "equal"} & set(counted.names)
