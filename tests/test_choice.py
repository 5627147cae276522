"""What a choice declares: capabilities are inherited, forwarded by wrappers, and checked by the battery."""

import pytest
import torch

from bisam import METHODS, SAM, SharpnessAware
from bisam.choice import Choice, Wrapper
from bisam.combine import Combine
from bisam.direction import Direction, Smoothed
from bisam.geometry import FisherBall, Geometry, L2Ball, OnlyModules, RandomSupport, ScaledBall, SparseSupport
from bisam.testing import BATTERY, CONTRACT, SPEED, Net, batches, run_steps
from bisam.testing.battery import check_constant_operations, check_scale


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


class Through(Wrapper, Geometry):
    """A user's wrapper that changes nothing."""

    def __call__(self, buckets, memory):
        self.inner(buckets, memory)


def test_a_wrapper_forwards_what_the_inner_choice_declares():
    assert Through(FisherBall()).needs_scale
    assert not Through(L2Ball()).needs_scale
    assert Through(SparseSupport()).memory == ("resting",)
    assert Through(RandomSupport(inner=SparseSupport(inner=FisherBall()))).memory == ("resting",)
    assert Through(RandomSupport(inner=SparseSupport(inner=FisherBall()))).needs_scale


@pytest.mark.parametrize(
    "inner",
    [FisherBall(), SparseSupport(every=1), ScaledBall(), OnlyModules(), RandomSupport(0.5, inner=FisherBall())],
    ids=lambda g: type(g).__name__,
)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_a_wrapped_geometry_passes_the_battery(inner, check):
    check(lambda model: SAM(sgd(model), model=model, geometry=Through(inner)))


@pytest.mark.parametrize("inner", [FisherBall(), SparseSupport(every=2), OnlyModules()], ids=lambda g: type(g).__name__)
def test_a_wrapper_that_changes_nothing_changes_nothing(inner):
    weights = []
    for geometry in (inner, Through(inner)):
        model = Net()
        run_steps(model, SAM(sgd(model), model=model, rho=0.3, geometry=geometry), batches(5))
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


def test_a_wrapper_declares_its_own_besides():
    class Remembers(Wrapper, Geometry):
        own_memory = ("mine",)
        own_numbers = {"count": 0}
        own_needs_scale = True

        def __call__(self, buckets, memory):
            self.inner(buckets, memory)

    wrapped = Remembers(SparseSupport())
    assert wrapped.memory == ("mine", "resting")
    assert wrapped.numbers == {"count": 0}
    assert wrapped.needs_scale


@pytest.mark.parametrize("inner", [lambda buckets, memory: None, Smoothed(), L2Ball, None, "l2"])
def test_a_wrapper_takes_a_choice_of_its_axis(inner):
    with pytest.raises(TypeError, match=r"inner=.*bisam\.geometry\.Geometry|inner=L2Ball is a class"):
        Through(inner)


class Undeclared(Geometry):
    """Fisher's ellipsoid by one who forgot needs_scale."""

    def __call__(self, buckets, memory):
        FisherBall()(buckets, memory)


def test_the_battery_tells_a_dependence_on_the_scale_that_is_not_declared():
    with pytest.raises(AssertionError, match="does not declare needs_scale"):
        check_scale(lambda model: SAM(sgd(model), model=model, rho=0.5, geometry=Undeclared()))


def test_the_battery_tells_a_scale_that_is_declared_and_not_taken_out():
    class Grows(Direction):
        needs_scale = True

        def __init__(self):
            self.calls = 0

        def __call__(self, gradient, memory):
            self.calls += 1
            gradient.mul_(1.0 if self.calls % 2 else -1.0)

    shared = Grows()  # three calls a run: the second run begins with the other sign
    with pytest.raises(AssertionError, match="1024"):
        check_scale(lambda model: SAM(sgd(model), model=model, rho=0.5, direction=shared))


class Slow(Geometry):
    """A geometry that loops over tensors: right, and slow."""

    def __call__(self, buckets, memory):
        L2Ball()(buckets, memory)
        for bucket in buckets:
            for tensor in bucket.tensors:
                tensor.mul_(1.0)


def test_a_slow_choice_keeps_the_contract_and_may_leave_the_speed_out():
    def make(model):
        return SAM(sgd(model), model=model, geometry=Slow())

    for check in CONTRACT:
        check(make)
    with pytest.raises(AssertionError, match="grow with the parameters"):
        check_constant_operations(make)
    assert set(BATTERY) == {*CONTRACT, *SPEED}


def test_every_shipped_choice_declares_itself():
    for method in METHODS.values():
        for axis in method.choices:
            numbers = {"total_steps": 10} if "total_steps" in method.numbers else {}
            choice = method.choose(axis, **numbers)
            assert isinstance(choice, Choice) or axis == "ascent", (method.name, axis)


def test_the_estimator_says_what_a_step_costs():
    class Nothing(Combine):
        def __call__(self, at_w, at_perturbed, memory):
            pass

    model = Net()
    opt = SharpnessAware(sgd(model), model=model)
    assert opt.estimator.passes_per_step == (1, 2, 2.0)
    assert not opt.estimator.ascent_differs
    opt = SharpnessAware(sgd(Net()), ascent=torch.nn.MultiMarginLoss(), combine=Nothing(), third_pass=True)
    assert opt.estimator.passes_per_step == (1, 3, 3.0)
    assert opt.estimator.ascent_differs
    assert opt.estimator.needs_gradient_at_w
