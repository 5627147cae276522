"""Methods by name: what a name makes, its radius and its loop, and what is said of one that makes nothing."""

import pytest
import torch
from torch import nn

from bisam import ASAM, GSAM, METHODS, LowerBoundLoss
from bisam.geometry import OnlyModules, RandomSupport, ScaledBall
from bisam.testing import Net, batches, bits, run_steps
from bisam_lab.registry.methods import Method, names
from tests.makers import MAKERS


def built(name, options=None, model=None, **kwargs):
    model = Net() if model is None else model
    given = {"rho": 0.2, "descent": nn.CrossEntropyLoss(), "steps": 40, "epochs": 4, **kwargs}
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9 if name == "momentumsam" else 0.0)
    return Method(name, options or {}).build(base, model=model, **given)


@pytest.mark.parametrize("name", METHODS)
def test_a_single_name_is_its_class(name):
    ours, theirs = Net(), Net()
    tail = {"tailsam": {"tail": 1.0, "total_steps": 1000}}
    run_steps(ours, built(name, tail, model=ours, descent=nn.CrossEntropyLoss()), batches(4))
    options = {"total_steps": 40} if name in ("aesam", "lesam") else {}
    options |= {"every": 50, "total_steps": 40} if name == "ssam" else {}
    run_steps(
        theirs,
        MAKERS[name](torch.optim.SGD(theirs.parameters(), lr=0.1), model=theirs, rho=0.2, **options),
        batches(4),
    )
    assert bits(ours) == bits(theirs)


def test_parts_join():
    ours, theirs = Net(), Net()
    run_steps(ours, built("bisam-tanh+asam", model=ours), batches(3))
    base = torch.optim.SGD(theirs.parameters(), lr=0.1)
    run_steps(theirs, ASAM(base, model=theirs, rho=0.2, ascent=LowerBoundLoss("tanh")), batches(3))
    assert bits(ours) == bits(theirs)
    ours, theirs = Net(), Net()
    run_steps(ours, built("gsam+bisam", model=ours), batches(3))
    base = torch.optim.SGD(theirs.parameters(), lr=0.1)
    run_steps(theirs, GSAM(base, model=theirs, rho=0.2, ascent=LowerBoundLoss(), third_pass=True), batches(3))
    assert bits(ours) == bits(theirs)


def test_a_geometry_holds_another():
    for name in ("esam+samon+asam", "asam+esam+samon"):
        outer = built(name).estimator.geometry
        assert isinstance(outer, OnlyModules)
        assert isinstance(outer.inner, RandomSupport)
        assert isinstance(outer.inner.inner, ScaledBall)


@pytest.mark.parametrize(
    ("name", "radius"),
    [("sgd", 0), ("sam", 0.1), ("bisam-log", 0.1), ("asam", 1.0), ("bisam-log+asam", 1.0), ("samon+asam", 1.0),
     ("friendlysam", 0.4), ("fishersam", 0.2), ("msam", 0.1)],
)  # fmt: skip
def test_a_radius_is_in_proportion_to_the_published_ones(name, radius):
    assert Method(name, {}).radius(0.1, {}) == pytest.approx(radius)


def test_a_radius_of_its_own():
    radii = {"asam": 2.0, "bisam-log+asam": 3.0}
    assert [Method(n, {}).radius(0.1, radii) for n in ("asam", "bisam-log+asam", "bisam-tanh+asam", "sam")] == [
        2,
        3,
        2,
        0.1,
    ]


def test_loops():
    plain, both = Method("sam", {}), Method("msam+esam", {"msam": {"m": 2}, "esam": {"gamma": 0.25, "beta": 0.5}})
    assert (plain.micro_batches, plain.sharpest_samples, plain.follows_learning_rate) == (1, None, False)
    assert both.micro_batches == 2
    assert both.sharpest_samples.gamma == 0.25
    assert both.choices(1, 1)["geometry"].beta == 0.5
    assert Method("gsam", {}).follows_learning_rate


def test_the_length_of_training_is_told():
    assert built("aesam").estimator.cadence.total_steps == 40
    assert (built("ssam").estimator.geometry.every, built("ssam").estimator.geometry.total_steps) == (50, 40)
    assert built("aesam", {"aesam": {"total_steps": 7}}).estimator.cadence.total_steps == 7


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sma", {}, ["'sma' is none of", "bisam-log", "did you mean sam?"]),
        ("bisam-lgo+asam", {}, ["did you mean bisam-log?"]),
        ("sgd+asam", {}, ["sgd is the plain optimizer"]),
        ("asam+asam", {}, ["names a method twice"]),
        ("bisam-log+bisam-tanh", {}, ["names a method twice"]),
        ("asam+fishersam", {}, ["asam and fishersam both choose the geometry"]),
        ("gsam+wsam", {}, ["both choose the combination"]),
        ("looksam+aesam", {}, ["both choose the cadence"]),
        ("every+tailsam", {}, ["every and tailsam both choose the cadence"]),
        ("esam+subbatch", {}, ["esam and subbatch both choose the samples"]),
        ("subbatch", {"subbatch": {"share": 2}}, ["share=2 must lie"]),
        ("every", {"every": {"k": 0}}, ["k=0 must be a whole number"]),
        ("looksam", {"looksam": {"kk": 3}}, ["option looksam.kk does not exist", "k, alpha"]),
        ("looksam", {"looksam": {"k": 0}}, ["k=0 must be a whole number, 1 or more"]),
        ("msam", {"msam": {"m": 0}}, ["m=0 must be a whole number"]),
        ("esam", {"esam": {"gamma": 2}}, ["gamma=2 must lie"]),
        ("bisam-log", {"bisam-log": {"nu": 2}}, ["bisam-log takes mu"]),
    ],
)
def test_errors(name, options, words):
    with pytest.raises(ValueError, match=r".") as caught:
        Method(name, options)
    for word in words:
        assert word in str(caught.value)


def test_every_part_is_named():
    assert set(METHODS) < set(names())
    assert {"sgd", "msam", "bisam-log", "bisam-tanh", "bisam-ramp"} < set(names())


def test_numbers_in_a_name():
    tanh = Method("bisam-tanh@mu=5@alpha=0.2+asam@rho=0.7", {"bisam-tanh": {"mu": 3}})
    assert tanh.parts == ["bisam-tanh", "asam"]
    assert tanh.radius(0.1, {"asam": 9.0}) == 0.7
    opt = built("bisam-tanh@mu=5@alpha=0.2+asam@rho=0.7", {"bisam-tanh": {"mu": 3}}, mu=1.0)
    assert "mu=5.0" in repr(opt)
    assert "alpha=0.2" in repr(opt)
    assert built("looksam@k=7").estimator.cadence.k == 7
    every = built("bisam-tanh+every@k=3").estimator
    assert every.cadence.k == 3
    assert repr(every.ascent) == repr(LowerBoundLoss("tanh"))
    assert built("every").estimator.cadence.k == 5
    assert Method("bisam-log+subbatch@share=0.5", {}).sub_batch.share == 0.5
    assert Method("msam@m=2", {}).micro_batches == 2
    assert Method("sam@rho=0", {}).radius(0.1, {}) == 0
    assert [Method(n, {}).radius(0.1, {}) for n in ("sam@rho=0.5", "bisam-log@mu=4")] == [0.5, 0.1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sam@rho", "must look like @rho=0.1"),
        ("sam@rho=x", "must look like @rho=0.1"),
        ("sam@rho=-1", "rho"),
        ("sam@mu=1", "sam takes none"),
        ("bisam-log@alpha=1", "takes mu"),
        ("bisam-tanh@mu=0", "mu"),
        ("looksam@k=0.5", "k"),
        ("bisam-log@rho=1+asam@rho=2", "2 radii"),
        ("adamw+sam", "joins nothing"),
        ("sgd@rho=1+sam", "joins nothing"),
    ],
)
def test_numbers_in_a_name_that_cannot_be(name, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Method(name, {})
