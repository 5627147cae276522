"""The balls: ASAM's scaled one, the layer-wise one, Fisher's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bisam import ASAM, SAM, FisherSAM, ScaledBall
from bisam.geometry import LayerBall
from bisam.testing import Net
from tests.reference import family
from tests.steps import X, Y, moves, perturbations, sgd


@pytest.mark.filterwarnings("ignore:.*running statistics")  # names come with the model
@given(rho=st.floats(1e-2, 2.0), eta=st.sampled_from([0.0, 0.01, 1.0]), named=st.booleans())
@settings(max_examples=20)
def test_asam_eps_has_norm_rho_in_its_own_geometry(rho, eta, named):
    model = Net()
    opt = SAM(sgd(model), model=model if named else None, rho=rho, geometry=ScaledBall(eta))
    total = 0.0
    for (name, p), e in zip(model.named_parameters(), moves(opt, model), strict=True):
        t = p.detach().abs() + eta if "weight" in name or not named else torch.ones_like(p)
        total += ((e / t)[t > 0] ** 2).sum()
    assert math.isclose(math.sqrt(total), rho, rel_tol=1e-9)


def test_asam_is_blind_to_a_rescaling_between_layers():
    """Twice the weights here and half there compute the same function, and eps scales along."""
    model, scaled = (
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double() for _ in "ab"
    )
    scaled.load_state_dict(model.state_dict())
    with torch.no_grad():
        scaled[0].weight.mul_(8)
        scaled[2].weight.div_(8)
    first, second = (moves(ASAM(sgd(m), model=m, eta=0.0), m) for m in (model, scaled))
    torch.testing.assert_close(first[0] * 8, second[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(first[1] / 8, second[1], rtol=1e-9, atol=0)


@pytest.mark.filterwarnings("ignore:weights in torch.float16")
def test_asam_in_float16_does_not_overflow():
    weights = nn.Parameter(torch.full((3,), 100.0, dtype=torch.float16))
    (moved,) = perturbations([weights], [torch.full((3,), 1000.0, dtype=torch.float16)], rho=0.5, method=ASAM)
    torch.testing.assert_close(
        moved, torch.full((3,), 100.0 * 0.5 / math.sqrt(3), dtype=torch.double), rtol=5e-3, atol=0
    )


def test_layer_ball_is_the_layer_wise_rule():
    model, other = Net(), Net()
    opt = SAM(sgd(model), model=model, rho=0.5, geometry=LayerBall())
    at = family.At(other, X, Y)
    g = at(at.w)
    T = torch.cat([p.detach().norm().expand(p.numel()) for _, p in at.params])
    eps = 0.5 * T**2 * g / (T * g).norm()
    for objective in opt.passes():
        if not objective.is_ascent:
            here = family.At(model, X, Y).w - at.w
        objective(model(X), Y).backward()
    torch.testing.assert_close(here, eps, rtol=1e-9, atol=1e-12)


def test_fisher_squares_of_16_bit_gradients_do_not_overflow():
    model = nn.Linear(6, 4).half()
    opt = FisherSAM(sgd(model), rho=0.5)
    with pytest.warns(UserWarning, match="round small perturbations"):
        for objective in opt.passes():
            out = model(X.half()).float()
            (objective(out, Y) * (3000 if objective.is_ascent else 1)).backward()
    assert opt.last.perturbed
    assert opt.last.norm > 0
