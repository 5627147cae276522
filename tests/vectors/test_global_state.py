"""What the user has set for all of torch changes no step: the library names dtypes, devices and generators itself."""

import contextlib
import functools

import pytest
import torch
from torch import nn

from bisam import METHODS, SAM, LowerBoundLoss
from bisam.geometry import (
    FilterBall,
    FisherBall,
    LayerBall,
    PNormBall,
    RandomSupport,
    ScaledBall,
    SparseSupport,
    SpectralBall,
)
from bisam.radius import AccumulatedRadius
from bisam.testing import bits
from tests.makers import UNDER_EACH_ASCENT, each_ascent
from tests.steps import NEEDS_THIRD_PASS, build, sgd


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    """The weights lie elsewhere: a tensor that is made there by mistake cannot be computed with."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def flushed():
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def anomaly():
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        yield


STATES = {
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default meta": lambda: default_device("meta"),
    "deterministic": deterministic,
    "flushed": flushed,
    "anomaly": anomaly,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
CHOICES = [
    {"geometry": LayerBall()},
    {"geometry": FilterBall()},
    {"geometry": PNormBall(3.0)},
    {"geometry": PNormBall(torch.inf)},
    {"geometry": SpectralBall()},
    {"geometry": FisherBall()},
    {"geometry": RandomSupport(0.5, inner=ScaledBall())},
    {"geometry": RandomSupport(0.5, unit="tensor")},
    {"geometry": SparseSupport(every=2)},
    {"radius": AccumulatedRadius()},
    {"same_dropout": True},
]
#: So that three steps perturb.
PERTURBS = {"tailsam": {"tail": 1.0}}
WEIGHTS = {"float32": torch.float32, "float64": torch.float64}


def network(dtype):
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return net


def data(dtype):
    rng = torch.Generator().manual_seed(1)
    xs = [torch.randn(16, 6, generator=rng, dtype=torch.float64).to(dtype) for _ in range(3)]
    return [(x, torch.randint(4, (16,), generator=rng)) for x in xs]


def trained(make, dtype, state=contextlib.nullcontext):
    """Return the weights after three steps: all but the network itself runs in that state."""
    net, batches = network(dtype), data(dtype)
    before = torch.get_rng_state()
    with state():
        opt = make(net)
        for x, y in batches:
            for objective in opt.passes():
                with torch.autocast("cpu", enabled=False):
                    objective(net(x), y).backward()
            opt.step()
            opt.load_state_dict(opt.state_dict())
            opt.zero_grad()
    assert torch.equal(torch.get_rng_state(), before), "a step has drawn from the user's random numbers"
    return bits(net)


#: A default dtype may be confused with that of the weights, so it meets two; the rest need one.
CASES = [(state, weights) for state in STATES for weights in WEIGHTS if weights == "float32" or "float" in state]


@functools.cache
def method(case, weights, state=None):
    name, foreign = case
    choices = {"ascent": LowerBoundLoss(), "third_pass": name in NEEDS_THIRD_PASS} if foreign else {}
    choices |= PERTURBS.get(name, {})
    return trained(lambda net: build(name, net, **choices), WEIGHTS[weights], STATES.get(state, contextlib.nullcontext))


@pytest.mark.parametrize(("state", "weights"), CASES)
@pytest.mark.parametrize("case", UNDER_EACH_ASCENT, ids=each_ascent)
def test_no_method_depends_on_torchs_global_state(case, state, weights):
    assert method(case, weights, state) == method(case, weights)


@functools.cache
def choice(number, weights, state=None):
    return trained(
        lambda net: SAM(sgd(net), model=net, rho=0.1, **CHOICES[number]),
        WEIGHTS[weights],
        STATES.get(state, contextlib.nullcontext),
    )


@pytest.mark.parametrize(("state", "weights"), CASES)
@pytest.mark.parametrize("number", range(len(CHOICES)), ids=lambda number: repr(CHOICES[number]))
def test_no_choice_depends_on_torchs_global_state(number, state, weights):
    assert choice(number, weights, state) == choice(number, weights)


@pytest.mark.parametrize("name", METHODS)
def test_a_closure_is_driven_where_gradients_are_off(name):
    """Engines call ``step(closure)`` under ``no_grad``."""
    weights = []
    for off in (False, True):
        net = network(torch.float64)
        opt = build(name, net, **PERTURBS.get(name, {}))
        for x, y in data(torch.float64):

            def closure():
                opt.zero_grad()
                loss = opt.objective(net(x), y)
                loss.backward()
                return loss

            with torch.set_grad_enabled(not off):
                opt.step(closure)
        weights.append(bits(net))
    assert weights[0] == weights[1]
