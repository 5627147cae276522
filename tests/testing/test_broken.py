"""Broken methods: each passes every other check of the contract, and the one that is for it says what is wrong."""

import pytest
import torch

from bisam import SAM
from bisam.cadence import Window
from bisam.choice import Vector
from bisam.direction import Direction, Smoothed
from bisam.geometry import Geometry, L2Ball
from bisam.radius import Radius
from bisam.testing import CONTRACT
from bisam.testing.battery import check_odd_gradients
from bisam.testing.group_radii import check_group_radii
from bisam.testing.leaving import check_interrupted_loops
from bisam.testing.scale import check_gradient_range, check_scale


def in_no_unit(buckets):
    """The unit of all gradients, and the gradients without it, each group's multiplied by its relative radius."""
    unit = buckets[0].unit.to(buckets[0].weights[0].dtype) * (buckets[0].rho / max(bucket.rho for bucket in buckets))
    return unit, [tensor * unit for bucket in buckets for tensor in bucket.tensors]


def multiply(bucket, factor):
    bucket.multiply([bucket.weights[0].new_tensor(factor)] * len(bucket.tensors))


# -- group radii -----------------------------------------------------------------------------------------------------


class BallOfEachGroup(Geometry):
    """Every group moves by its whole radius."""

    def __call__(self, buckets, memory):
        for bucket in buckets:
            bucket.normalise(Vector([bucket]).norm())


class LargestRadius(L2Ball):
    """All groups climb by the largest radius."""

    def __call__(self, buckets, memory):
        largest = max(bucket.rho for bucket in buckets)
        for bucket in buckets:
            multiply(bucket, largest / bucket.rho)
        super().__call__(buckets, memory)
        for bucket in buckets:
            multiply(bucket, largest / bucket.rho)


class RadiusNotSquared(Geometry):
    """eps_k = rho_k g_k / ||g||."""

    def __call__(self, buckets, memory):
        largest = max(bucket.rho for bucket in buckets)
        for bucket in buckets:
            multiply(bucket, largest / bucket.rho)
        length = Vector(buckets).norm()
        for bucket in buckets:
            bucket.normalise(length)


class OneRadiusForAll(L2Ball):
    """Moves by 0.05, whatever rho is."""

    def __call__(self, buckets, memory):
        super().__call__(buckets, memory)
        for bucket in buckets:
            multiply(bucket, 0.05 / bucket.rho)


class NormOfAll(Radius):
    """rho g / ||g|| with the norm over all groups, those at rest included."""

    needs_scale = True

    def __init__(self, params):
        self.params = list(params)

    def __call__(self, rho, norm, memory):
        whole = torch.cat([p.grad.flatten() for p in self.params if p.grad is not None]).double().norm()
        return rho * (norm / whole).to(norm)


class RestsOnlyInName(SAM):
    """rho=0 becomes a small radius as soon as another group moves."""

    def passes(self, grad_scale=None):
        if any(group["rho"] for group in self.param_groups):
            for group in self.param_groups:
                group["rho"] = group["rho"] or 0.01
        return super().passes(grad_scale)


class FirstGroupFirst(Direction):
    """Half of the gradient counts in all groups but the first."""

    def __call__(self, gradient, memory):
        Vector(gradient.parts[1:]).mul_(0.5)


# -- memory ----------------------------------------------------------------------------------------------------------


class MeanInPlace(Direction):
    """Changes its memory in place instead of writing to it."""

    memory = ("mean",)
    needs_scale = True

    def __call__(self, gradient, memory):
        mean, finite = memory.read("mean", gradient), [row.nan_to_num(0, 0, 0) for row in gradient.rows()]
        mean.lerp_(gradient.of_rows(finite), 0.5)
        gradient.copy_(mean)


class CountsClimbs(Radius):
    """A radius that falls with the number of climbs, which it counts at once and not from step() on."""

    numbers = {"climbs": 0.0}

    def __call__(self, rho, norm, memory):
        for group in memory._base.param_groups:
            group["sharpness_climbs"] += 1.0
        return torch.full_like(norm, rho / memory.number("climbs"))


class RunningNorm(Radius):
    """rho ||g|| over the running sum of norms, in which a NaN stays for good."""

    numbers = {"sum": 0.0}
    needs_scale = True

    def __call__(self, rho, norm, memory):
        total = 0.5 * torch.as_tensor(memory.number("sum")).to(norm) + norm
        memory.write_number("sum", total)
        return rho * norm / total


class CountsLoops(SAM):
    """Perturbs in every second loop that begins, and takes those that are left for steps."""

    def passes(self, grad_scale=None):
        for group in self.param_groups:
            group["sharpness_loops"] = group.get("sharpness_loops", 0) + 1
        return super().passes(grad_scale)


# -- scale -----------------------------------------------------------------------------------------------------------


class MeanUndeclared(Smoothed):
    """Averages gradients over steps, and does not declare that it needs their scale."""

    needs_scale = False


class PlainSquares(Geometry):
    """Adds up squares of the gradients as they are."""

    def __call__(self, buckets, memory):
        unit, gradients = in_no_unit(buckets)
        length = sum(gradient.square().sum() for gradient in gradients).sqrt()
        for bucket in buckets:
            bucket.normalise(length / unit)


class EpsilonInNorm(Geometry):
    """||g|| + 1e-12."""

    def __call__(self, buckets, memory):
        unit, _ = in_no_unit(buckets)
        length = Vector(buckets).norm() + 1e-12 / unit
        for bucket in buckets:
            bucket.normalise(length)


class ClippedGradient(Direction):
    """Takes entries beyond 1e9 for errors of measurement."""

    def __call__(self, gradient, memory):
        gradient.copy_(gradient.of_rows([row.clamp(-1e9, 1e9) for row in gradient.rows()]))


def sam(method=SAM, **choices):
    def make(model):
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return method(base, model=model, rho=0.05, **choices)

    return make


def norm_of_all(model):
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, radius=NormOfAll(model.parameters()))


BROKEN = {
    "ball-of-each-group": (sam(geometry=BallOfEachGroup()), check_group_radii, "do not move as one group does"),
    "first-group-first": (sam(direction=FirstGroupFirst()), check_group_radii, "do not move as one group"),
    "largest-radius": (sam(geometry=LargestRadius()), check_group_radii, r"radii \(rho, 2 rho\)"),
    "radius-not-squared": (sam(geometry=RadiusNotSquared()), check_group_radii, r"radii \(rho, 2 rho\)"),
    "one-radius-for-all": (sam(geometry=OneRadiusForAll()), check_group_radii, "twice the radii do not give"),
    "norm-of-all": (norm_of_all, check_group_radii, "rho=0 changes the perturbation of the other"),
    "rests-in-name": (sam(RestsOnlyInName), check_group_radii, "a group with rho=0 moves by"),
    "mean-in-place": (sam(direction=MeanInPlace()), check_interrupted_loops, "weights differ"),
    "counts-climbs": (sam(radius=CountsClimbs()), check_interrupted_loops, "weights differ"),
    "running-norm": (sam(radius=RunningNorm()), check_odd_gradients, "no step climbs any more after .* times inf"),
    "counts-loops": (sam(CountsLoops), check_interrupted_loops, "'sharpness_loops' is 15, and without .* 2"),
    "mean-undeclared": (sam(direction=MeanUndeclared()), check_scale, "times 1024, 2048 and 4096 .* does not declare"),
    "plain-squares": (sam(geometry=PlainSquares()), check_gradient_range, "1e-25 in torch.float32 0.0"),
    "epsilon-in-norm": (sam(geometry=EpsilonInNorm()), check_gradient_range, "1e-25 in torch.float64"),
    "clipped": (sam(direction=ClippedGradient()), check_gradient_range, "1e25 in torch.float64"),
}


@pytest.mark.parametrize(("make", "check", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_method_fails_the_check_that_is_for_it(make, check, message):
    for other in CONTRACT:
        if other is not check:
            other(make)
    with pytest.raises(AssertionError, match=message):
        check(make)


@pytest.mark.filterwarnings("ignore:cadence=Window")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_method_that_never_perturbs_has_no_radius_to_check():
    with pytest.raises(AssertionError, match=r"none of the first 40 steps perturbs.*tail=1\.0"):
        check_group_radii(sam(cadence=Window(start=1000)))


def test_a_method_that_perturbs_late_is_checked():
    check_group_radii(sam(cadence=Window(start=7)))
    with pytest.raises(AssertionError, match="do not move as one group"):
        check_group_radii(sam(cadence=Window(start=7), geometry=BallOfEachGroup()))


def test_a_radius_that_is_not_squared_is_told_behind_a_direction():
    """There the gradient's doubling proves nothing, and an ellipsoid's proportions are asked."""

    class NotSquared(L2Ball):
        __call__ = RadiusNotSquared.__call__

    check_group_radii(sam(direction=Smoothed()))
    with pytest.raises(AssertionError, match=r"radii \(rho, 2 rho\)"):
        check_group_radii(sam(direction=Smoothed(), geometry=NotSquared()))
