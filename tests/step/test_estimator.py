"""The choices that make a gradient: what fits together, what is refused, one's own on every axis."""

import pytest
import torch

from bisam import SAM, SSAM, LowerBoundLoss, ScaledBall, SharpnessAware
from bisam.cadence import Cadence
from bisam.direction import Direction
from bisam.geometry import Ellipsoid, FisherBall, SparseSupport
from bisam.testing import Net
from tests.steps import NEEDS_THIRD_PASS, X, Y, build, moves, sgd, turn


@pytest.mark.parametrize("name", sorted(NEEDS_THIRD_PASS))
def test_what_needs_the_other_gradient_says_how_to_get_it(name):
    model = Net()
    with pytest.raises(ValueError, match="third_pass=True"):
        build(name, model, ascent=LowerBoundLoss())
    kinds = []
    opt = build(name, model, ascent=LowerBoundLoss(), third_pass=True)
    for objective in opt.passes():
        kinds.append((objective.index, objective.is_ascent, objective.loss is opt.estimator.ascent))
        objective(model(X), Y).backward()
    assert kinds == [(0, True, False), (1, True, True), (2, False, False)]


@pytest.mark.parametrize(
    ("choice", "word"),
    [({"geometry": ScaledBall}, "geometry="), ({"descent": "ce"}, "descent='ce'"), ({"cadence": 5}, "cadence=5")],
)
def test_choices_are_checked_when_they_are_made(choice, word):
    with pytest.raises(TypeError, match=word):
        SAM(sgd(Net()), **choice)


@pytest.mark.parametrize(
    ("axis", "base"),
    [
        ("direction", "bisam.direction.Direction"),
        ("geometry", "bisam.geometry.Geometry"),
        ("radius", "bisam.radius.Radius"),
        ("cadence", "bisam.cadence.Cadence"),
        ("combine", "bisam.combine.Combine"),
    ],
)
def test_a_plain_callable_is_refused_with_the_class_to_derive(axis, base):
    model = Net()
    inner = FisherBall()
    with pytest.raises(TypeError, match=f"{axis}=.*{base}.*bisam.choice.Wrapper"):
        SharpnessAware(sgd(model), model=model, **{axis: lambda buckets, memory: inner(buckets, memory)})
    with pytest.raises(TypeError, match="is a class: pass an object"):
        SharpnessAware(sgd(model), model=model, geometry=FisherBall)


def test_two_memories_of_one_name_are_refused():
    model = Net()
    with pytest.raises(ValueError, match="of one name"):
        SSAM(sgd(model), model=model, inner=SparseSupport())


def test_a_negative_rho_set_later_is_refused():
    model = Net()
    opt = SAM(sgd(model), model=model)
    opt.param_groups[0]["rho"] = -1.0
    with pytest.raises(ValueError, match="rho=-1"):
        turn(opt, model)


class Downhill(Direction):
    def __call__(self, gradient, memory):
        gradient.mul_(-1.0)


class FirstLayer(Ellipsoid):
    """An ellipsoid of radius 2 over the parameters of the first layer."""

    def __init__(self):
        self.seen = []

    def metric(self, bucket, memory):
        return [torch.full_like(p, 2.0) for p in bucket.params]

    def __call__(self, buckets, memory):
        (bucket,) = buckets
        self.seen.extend(bucket.names)
        bucket.select(lambda number: bucket.names[number].startswith("first"))
        super().__call__(buckets, memory)


class FirstStep(Cadence):
    def __call__(self, step):
        return step == 0


def test_every_choice_can_be_ones_own():
    model, geometry = Net(), FirstLayer()
    opt = SharpnessAware(
        sgd(model),
        model=model,
        ascent=LowerBoundLoss(),
        direction=Downhill(),
        geometry=geometry,
        cadence=FirstStep(),
    )
    eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model), strict=True))
    assert (eps["first.weight"] != 0).any()
    assert all((e == 0).all() for name, e in eps.items() if not name.startswith("first"))
    plain = Net()
    LowerBoundLoss()(plain(X), Y).backward()
    assert (eps["first.weight"] * plain.first.weight.grad).sum() < 0
    assert "head.bias" in geometry.seen
    opt.step()
    opt.zero_grad()
    ascents = []
    for objective in opt.passes():
        objective(model(X), Y).backward()
        ascents.append(objective.is_ascent)
    assert ascents == [False]
