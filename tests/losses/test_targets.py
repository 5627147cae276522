"""Targets that are no classes: refused by shape in every call, and by value in the first call alone."""

import copy

import pytest
import torch

from bisam import LowerBoundLoss, ZeroOneLoss
from bisam.functional import lower_bound_loss, zero_one_loss
from bisam.losses import _targets

F = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
LOSSES = [lower_bound_loss, zero_one_loss, LowerBoundLoss, ZeroOneLoss]
losses = pytest.mark.parametrize("make", [pytest.param(loss, id=loss.__name__) for loss in LOSSES])


def built(make):
    return make() if isinstance(make, type) else make


@pytest.fixture
def looks(monkeypatch):
    """The number of times that the values of a target were fetched."""
    fetched = []
    real = _targets._values
    monkeypatch.setattr(_targets, "_values", lambda *scalars: fetched.append(scalars) or real(*scalars))
    return fetched


@losses
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (HOT, ["sum to 0 .. 3", "BinaryLowerBoundLoss", "nn.BCEWithLogitsLoss()", "logits[keep]"]),
        (torch.tensor([[2.0, -1.0, 0.0]]).expand(4, 3), ["lowest value is -1"]),
        (torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), ["no probabilities", "SAM or ASAM"]),
        (torch.full((4, 3), torch.nan), ["nan"]),
        (torch.full((4, 3), 0.4).half(), ["sum to 1.2 .. 1.2"]),
    ],
)  # fmt: skip
def test_rows_that_are_no_probabilities_are_refused(make, target, words):
    loss = built(make)
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(ValueError, match=r"^target holds rows over 3 classes") as caught:
            loss(F, target)
        for word in words:
            assert word in str(caught.value)


@losses
def test_pixels_of_several_labels_are_refused(make):
    logits, target = torch.randn(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"over 3 classes.*sum to 3 \.\. 3"):
        built(make)(logits, target)
    built(make)(logits, target / 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_that_were_rounded_are_taken(dtype):
    torch.manual_seed(0)
    for classes in (2, 10, 1000, 50000):
        for sharpness in (0.1, 3.0):
            target = torch.softmax(sharpness * torch.randn(16, classes), 1).to(dtype)
            assert _targets.are_distributions(target.float())
    target = torch.softmax(torch.randn(4, 3), 1).to(dtype)
    for make in LOSSES:
        assert built(make)(F, target).isfinite()


@losses
def test_one_logit_is_no_class(make):
    for logits, target in (
        (torch.zeros(8, 1), torch.zeros(8, dtype=torch.long)),
        (torch.zeros(8, 1), torch.zeros(8, 1)),
        (torch.zeros(1), torch.tensor(0)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)),
    ):
        with pytest.raises(ValueError, match=r"one class in dimension [01].*BinaryLowerBoundLoss\(\).*SAM or ASAM"):
            built(make)(logits, target)


@losses
def test_a_squeezed_batch_is_not_taken_for_one_sample(make):
    with pytest.raises(ValueError, match=r"logits\[None\] and target\[None\]; for one logit.*BinaryLowerBoundLoss"):
        built(make)(torch.randn(8), torch.full((8,), 1 / 8))
    row = built(make)(torch.randn(8)[None], torch.full((8,), 1 / 8)[None])
    assert row.isfinite()
    built(make)(torch.randn(8), torch.tensor(3))  # an index leaves no doubt


@losses
def test_labels_in_the_shape_of_logits_are_pointed_to_the_binary_bound(make):
    with pytest.raises(
        ValueError, match=r"class indices must have shape \(4,\); rows of 0 and 1.*BinaryLowerBoundLoss"
    ):
        built(make)(F, HOT.long())
    with pytest.raises(TypeError, match=r"torch\.bool.*target\.long\(\).*BinaryLowerBoundLoss"):
        built(make)(F, HOT.bool())


@pytest.mark.parametrize("kind", [LowerBoundLoss, ZeroOneLoss])
def test_a_module_looks_once(kind, looks):
    loss, rows = kind(), torch.softmax(F, 1)
    for _ in range(3):
        loss(F, torch.tensor([0, 1, 2, 0]))
    assert looks == []  # class indices are not looked at
    loss(F[:0], rows[:0])
    assert looks == []  # there is nothing to see
    for _ in range(3):
        loss(F, rows)
    assert len(looks) == 1
    copy.deepcopy(loss)(F, rows)
    assert len(looks) == 1


def test_the_functions_look_on_the_cpu_and_nowhere_else(looks):
    for loss in (lower_bound_loss, zero_one_loss):
        loss(torch.empty(4, 3, device="meta"), torch.empty(4, 3, device="meta"))
    assert looks == []
    lower_bound_loss(F, torch.softmax(F, 1))
    assert len(looks) == 1


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo itself, in torch 2.6
def test_transforms_are_not_looked_into():
    rows, loss = torch.softmax(F.flip(0), 1), LowerBoundLoss(reduction="none")
    expected = loss(F, rows)
    fresh = LowerBoundLoss()
    torch.testing.assert_close(torch.func.vmap(fresh)(F, rows), expected)
    torch.testing.assert_close(torch.func.vmap(lower_bound_loss)(F, rows), expected)
    compiled = torch.compile(fresh, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(F, rows), expected.mean())
    assert not fresh._looked
    with pytest.raises(ValueError, match="rows over 3 classes"):
        fresh(F, HOT)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_indices_that_cross_entropy_refuses(dtype):
    target = torch.tensor([0, 1, 2, 0])
    with pytest.raises(TypeError, match=r"int\d+: .*int64, uint8.*target\.long\(\)"):
        LowerBoundLoss()(F, target.to(dtype))
    with pytest.raises(RuntimeError):
        torch.nn.functional.cross_entropy(F, target.to(dtype))
    assert lower_bound_loss(F, target.to(dtype)) == lower_bound_loss(F, target)
    assert LowerBoundLoss()(F, target.to(torch.uint8)) == lower_bound_loss(F, target)
