"""A method as data, its class, and what a wrong call is answered."""

import inspect

import pytest
import torch
from torch import nn

import bisam
from bisam import ESAM, GSAM, METHODS, SAM, BiSAM, LowerBoundLoss, Method, SharpnessAware
from bisam.combine import Blend
from bisam.geometry import L2Ball, ScaledBall
from bisam.testing import Net
from tests.makers import MAKERS


def sgd(model, **numbers):
    return torch.optim.SGD(model.parameters(), lr=0.1, **numbers)


@pytest.mark.parametrize("name", METHODS)
def test_the_class_passes_its_entry_on(name):
    """Defaults stand in the signature for the reader and in the entry for everybody else: they are the same."""
    method = METHODS[name]
    kind = getattr(bisam, method.name)
    assert method.optimizer is kind
    assert kind.method is method
    parameters = inspect.signature(kind.__init__).parameters
    own = {n: p.default for n, p in parameters.items() if n not in ("self", "base", "model", "rho", "inner", "options")}
    assert own == method.numbers
    assert parameters["rho"].default == method.rho
    assert parameters["options"].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("name", METHODS)
def test_the_optimizer_makes_the_choices_of_its_entry(name):
    model = Net()
    method = METHODS[name]
    opt = MAKERS[name](sgd(model), model=model)
    assert type(opt) is method.optimizer
    assert [g["rho"] for g in opt.param_groups] == [method.rho]
    plain = SAM(sgd(Net()))
    axes = ("ascent", "direction", "geometry", "radius", "cadence", "combine")
    changed = {a for a in axes if type(getattr(opt.estimator, a)) is not type(getattr(plain.estimator, a))}
    assert changed == {*method.choices, *(("ascent",) if method.couple else ())}


@pytest.mark.parametrize("name", METHODS)
def test_every_class_documents_its_arguments_and_shows_an_example(name):
    text = inspect.getdoc(METHODS[name].optimizer)
    assert "Example:" in text
    assert text.index("Example:") < text.index("Args:")
    for number in ("base", "model", "rho", *METHODS[name].numbers, "options"):
        assert f"{number}:" in text.split("Args:")[1], number
    assert METHODS[name].arxiv in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda b: ESAM(b, beta=0.3, geometry=L2Ball()), ["beta=0.3", "geometry=L2Ball()"]),
        (lambda b: ESAM(b, inner=ScaledBall(), geometry=L2Ball()), ["inner=ScaledBall"]),
        (lambda b: GSAM(b, alpha=0.9, combine=Blend(2.0)), ["alpha=0.9", "combine=Blend"]),
        (lambda b: BiSAM(b, bound="tanh", mu=7, ascent=LowerBoundLoss()), ["bound='tanh'", "ascent=LowerBoundLoss"]),
        (lambda b: BiSAM(b, mu=7, ascent=nn.CrossEntropyLoss()), ["mu=7"]),
        (lambda b: BiSAM(b, bound="log", alpha=0.2), ["alpha=0.2", "bound='log'"]),
        (lambda b: BiSAM(b, bound=bisam.bounds.TanhBound(), alpha=0.2), ["alpha=0.2", "build the bound with it"]),
        (lambda b: LowerBoundLoss("log", alpha=0.1), ["alpha=0.1"]),
        (lambda b: bisam.LookSAM(b, k=3, cadence=bisam.cadence.Always()), ["k=3"]),
        (lambda b: bisam.VaSSO(b, theta=0.5, direction=bisam.direction.Friendly()), ["theta=0.5"]),
        (lambda b: bisam.SSAM(b, rule="fisher", every=5), ["every=5", "rule='fisher'"]),
        (lambda b: bisam.SSAM(b, rule="fisher", seed=0), ["seed=0"]),
        (lambda b: bisam.LESAM(b, anneal=0.5), ["anneal=0.5", "total_steps"]),
        (lambda b: bisam.USAM(b, lambda_=0.9, radius=bisam.radius.LossBudget(0.1)), ["lambda_=0.9"]),
        (lambda b: bisam.AESAM(b, delta=0.5, cadence=bisam.cadence.Every(2)), ["delta=0.5"]),
        (lambda b: bisam.FisherSAM(b, eta=2.0, geometry=L2Ball()), ["eta=2.0"]),
    ],
)
def test_a_number_without_effect_is_refused(make, words):
    with pytest.raises(ValueError, match="has no effect") as caught:
        make(sgd(Net()))
    for word in words:
        assert word in str(caught.value)


def test_a_choice_replaces_the_methods_own_where_no_number_is_lost():
    opt = ESAM(sgd(Net()), geometry=ScaledBall())
    assert isinstance(opt.estimator.geometry, ScaledBall)
    assert isinstance(GSAM(sgd(Net()), combine=None).estimator.combine, bisam.combine.Surrogate)  # None is not given
    assert isinstance(BiSAM(sgd(Net()), ascent=None).estimator.ascent, LowerBoundLoss)


@pytest.mark.parametrize(
    "make",
    [
        lambda b: SAM(b, rho="0.05"),
        lambda b: BiSAM(b, mu="1"),
        lambda b: bisam.ASAM(b, eta="0.01"),
        lambda b: bisam.LookSAM(b, alpha="0.7"),
        lambda b: bisam.AESAM(b, lambda_1="-1"),
        lambda b: bisam.WSAM(b, gamma="0.5"),
        lambda b: SAM(b, rho=b"1"),
        lambda b: bisam.RhoScheduler(SAM(b), rho_min="0"),
    ],
)
def test_text_for_a_number_is_refused(make):
    with pytest.raises(TypeError, match="must be a number, not text: leave out the quotes"):
        make(sgd(Net()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda m: BiSAM(m.parameters(), lr=0.1),
            ["base is a generator", "BiSAM(torch.optim.SGD(", "bisam.compat.SAM"],
        ),
        (
            lambda m: BiSAM(m.parameters(), torch.optim.SGD, rho=0.1),
            ["base is a generator", "bisam.compat.SAM"],
        ),
        (lambda m: BiSAM(list(m.parameters())), ["base is a list"]),
        (lambda m: SAM(torch.optim.SGD), ["base=SGD is a class", "SAM(SGD(...), model=model)"]),
        (lambda m: SAM(m), ["must be an optimizer", "SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)"]),
        (lambda m: SAM(sgd(m), m), ["one positional argument", "model=model"]),
        (lambda m: SAM(sgd(m), adaptive=True), ["adaptive=True", "bisam.ASAM"]),
        (lambda m: SharpnessAware(sgd(m), adaptive=True), ["adaptive=True", "bisam.ASAM"]),
        (lambda m: SAM(sgd(m), lr=0.1), ["lr=0.1", "belongs to the base optimizer"]),
        (lambda m: SAM(sgd(m), roh=0.1), ["roh=0.1", "did you mean rho=?"]),
        (lambda m: bisam.SSAM(sgd(m), mask={"every": 5}), ["mask=", "is no argument of SSAM"]),
        (lambda m: bisam.SAM(SAM(sgd(m))), ["is a SAM already", "unwrap()"]),
    ],
)
def test_a_newcomers_call_is_answered_with_the_line_to_write(make, words):
    with pytest.raises(TypeError) as caught:
        make(Net())
    for word in words:
        assert word in str(caught.value)


def test_half_steps_name_the_class_that_has_them():
    opt = SAM(sgd(Net()))
    for name in ("first_step", "second_step"):
        with pytest.raises(AttributeError, match=r"for objective in opt\.passes\(\).*bisam\.compat\.SAM"):
            getattr(opt, name)
    with pytest.raises(AttributeError, match="'SAM' object has no attribute 'third_step'"):
        opt.third_step  # noqa: B018


def test_a_class_of_ones_own_may_have_another_signature():
    class Mine(SharpnessAware):
        def __init__(self, params, lr, **options):
            super().__init__(torch.optim.SGD(params, lr=lr), **options)

    assert Mine(Net().parameters(), 0.1, rho=0.2).param_groups[0]["rho"] == 0.2
    with pytest.raises(TypeError, match="rhoo"):
        Mine(Net().parameters(), 0.1, rhoo=0.2)


def test_a_method_of_ones_own_is_an_entry_and_a_class():
    class Mine(SharpnessAware):
        """Mine."""

        method = Method(
            "Mine",
            "climb in the ball of the weights",
            "Me, 2026",
            "0000.00000",
            rho=0.3,
            choices={"geometry": lambda eta=0.5: ScaledBall(eta)},
        )

        def __init__(self, base, *, model=None, rho=0.3, eta=0.5, **options):
            super().__init__(base, model=model, rho=rho, **self.method.options(options, eta=eta))

    model = Net()
    opt = Mine.method(sgd(model), model=model, eta=0.25)
    assert type(opt) is Mine
    assert opt.estimator.geometry.eta == 0.25
    assert Mine.method.numbers == {"eta": 0.5}
    assert Mine.method.choose("geometry", eta=0.1).eta == 0.1
    with pytest.raises(ValueError, match=r"eta=0\.1 has no effect on Mine"):
        Mine(sgd(model), eta=0.1, geometry=L2Ball())


def test_unwrapping_gives_the_base_back_as_it_was():
    model = Net()
    base = sgd(model, momentum=0.9)
    groups, defaults = [dict(g) for g in base.param_groups], dict(base.defaults)
    opt = bisam.AESAM(base, model=model)
    bisam.RhoScheduler(opt)
    for objective in opt.passes():
        objective(model(torch.ones(2, 6).double()), torch.tensor([0, 1])).backward()
    opt.step()
    assert opt.unwrap() is base
    assert [dict(g) for g in base.param_groups] == groups
    assert base.defaults == defaults
    assert base.state  # momentum stays
    SAM(base, model=model)  # and it can be wrapped again
