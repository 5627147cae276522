"""The lower bound of the 0-1 loss: inequality, values, shapes, extremes, errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bisam import LowerBoundLoss, ZeroOneLoss
from bisam.bounds import ShiftedBound, TanhBound
from bisam.functional import binary_lower_bound_loss, lower_bound_loss, zero_one_loss
from bisam.testing import count_operations
from tests.losses.problems import every_bound, problems
from tests.reference.bounds import PHI, lower_bound

# -- the inequality ----------------------------------------------------------------------------------------------------


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


# -- values ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_float32(dtype):
    logits = torch.tensor([[3.0, -1.0, 0.5], [0.0, 100.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 2])
    value = lower_bound_loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.dtype == dtype
    assert value == lower_bound_loss(logits.detach().float(), target)


# -- shapes and targets ------------------------------------------------------------------------------------------------


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


# -- meta, vmap, errors, speed -----------------------------------------------------------------------------------------


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


def test_small_print_of_the_losses():
    f, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="-1"):
        binary_lower_bound_loss(f[:, 0], torch.tensor([0, 1, -1, 0]))
    with pytest.raises(TypeError, match="target of type list"):
        lower_bound_loss(f, [0, 1, 2, 0])
    with pytest.raises(RuntimeError, match="out of bounds"):
        torch.func.vmap(lower_bound_loss)(f, y + 5)
    assert lower_bound_loss(f, torch.softmax(f.double(), 1)).dtype == torch.float32


@settings(max_examples=20)
@given(problem=problems())
def test_no_synchronisation_with_the_host(problem):
    logits, target = problem
    with count_operations() as counted:
        lower_bound_loss(logits.requires_grad_(), target).backward()
        zero_one_loss(logits, target)
    assert not {"_local_scalar_dense", "is_nonzero", "nonzero", "equal"} & set(counted.names)
