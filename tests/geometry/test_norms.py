"""Balls of other norms: the farthest point against its formula, the SVD, and a search."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bisam import SAM, BiSAM
from bisam.geometry import L2Ball, OnlyModules, PNormBall, RandomSupport, SpectralBall
from bisam.testing import CONTRACT, SPEED, Net, batches


def eps_of(geometry, shapes, grads, rho=0.1):
    """What SAM in that geometry adds to weights with these gradients."""
    params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    opt = SAM(torch.optim.SGD(params, lr=0.1), rho=rho, geometry=geometry)
    before = [p.detach().clone() for p in params]
    loop = opt.passes()
    next(loop)
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    next(loop)
    moved = [p.detach() - b for p, b in zip(params, before, strict=True)]
    loop.leave("the test")
    return moved


def gradients(shapes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]


SHAPES = [(4, 3), (5,), (2, 3, 2, 2), ()]


@pytest.mark.parametrize("p", [1.05, 1.5, 2.0, 3.0, 20.0, math.inf])
def test_the_farthest_point_of_a_p_norm_ball(p):
    """eps = rho sign(g) |g|^(q-1) / (||g||_q^q)^(1/p) over all parameters together (Foret et al., Eq. 2)."""
    grads = gradients(SHAPES)
    moved = torch.cat([e.flatten() for e in eps_of(PNormBall(p), SHAPES, grads)])
    g = torch.cat([g.flatten() for g in grads])
    q = 1.0 if p == math.inf else p / (p - 1)
    expected = 0.1 * g.sign() * g.abs() ** (q - 1) / (g.abs() ** q).sum() ** (0.0 if p == math.inf else 1 / p)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-14)
    assert torch.linalg.vector_norm(moved, p) == pytest.approx(0.1, rel=1e-9)


@given(p=st.floats(1.1, 8.0), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_no_point_of_the_ball_lies_farther(p, seed):
    grads = gradients([(6,)], seed)
    (eps,) = eps_of(PNormBall(p), [(6,)], grads)
    others = torch.randn(500, 6, dtype=torch.float64)
    others = 0.1 * others / torch.linalg.vector_norm(others, p, dim=1, keepdim=True)
    assert (others @ grads[0]).max() <= eps @ grads[0] + 1e-12


def test_two_is_the_euclidean_ball_and_infinity_moves_every_weight():
    grads = gradients(SHAPES)
    for ours, theirs in zip(eps_of(PNormBall(2.0), SHAPES, grads), eps_of(L2Ball(), SHAPES, grads), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for ours, g in zip(eps_of(PNormBall(math.inf), SHAPES, grads), grads, strict=True):
        torch.testing.assert_close(ours, 0.1 * g.sign(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-200, 1e-25, 1e25, 1e200])
def test_the_magnitude_of_the_gradient_does_not_matter(scale):
    grads = gradients(SHAPES)
    for geometry in (PNormBall(3.0), PNormBall(math.inf), SpectralBall()):
        for a, b in zip(
            eps_of(geometry, SHAPES, grads), eps_of(geometry, SHAPES, [g * scale for g in grads]), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_groups_with_radii_of_their_own():
    """The ball ||{eps_k / rho_k}||_p <= 1: its farthest point, and for infinity each group's own radius."""
    params = [nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2)]
    grads = gradients([(4,), (4,)])
    for p in (3.0, math.inf):
        radii = [0.1, 0.4]
        groups = [{"params": [w], "rho": r} for w, r in zip(params, radii, strict=True)]
        opt = SAM(torch.optim.SGD(groups, lr=0.1), geometry=PNormBall(p))
        before, loop = [w.detach().clone() for w in params], opt.passes()
        next(loop)
        for w, g in zip(params, grads, strict=True):
            w.grad = g.clone()
        next(loop)
        moved = torch.cat([w.detach() - b for w, b in zip(params, before, strict=True)])
        loop.leave("the test")
        scale = torch.tensor([0.1] * 4 + [0.4] * 4, dtype=torch.float64)
        g = torch.cat(grads) * scale
        q = 1.0 if p == math.inf else p / (p - 1)
        expected = scale * g.sign() * g.abs() ** (q - 1) / torch.linalg.vector_norm(g, q) ** (q - 1)
        torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("p", [1.0, 0.5, -2.0, math.nan, "2"])
def test_what_is_no_norm_is_refused(p):
    with pytest.raises((TypeError, ValueError), match=r"p="):
        PNormBall(p)


def polar(matrix):
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def test_the_farthest_point_of_a_spectral_ball_is_the_polar_factor():
    """Each matrix by its SVD; everything else together in the l2 ball."""
    shapes = [(4, 6), (6, 4), (5, 5), (3, 2, 3, 3), (7,), ()]
    grads = gradients(shapes)
    moved = eps_of(SpectralBall(), shapes, grads, rho=0.2)
    for eps, g in zip(moved[:4], grads[:4], strict=True):
        torch.testing.assert_close(eps.reshape(len(eps), -1), 0.2 * polar(g.reshape(len(g), -1)), rtol=1e-5, atol=1e-6)
        assert torch.linalg.matrix_norm(eps.reshape(len(eps), -1), 2) == pytest.approx(0.2, rel=1e-5)
    rest = torch.cat([g.flatten() for g in grads[4:]])
    torch.testing.assert_close(torch.cat([e.flatten() for e in moved[4:]]), 0.2 * rest / rest.norm())


def test_a_matrix_of_tiny_gradients_has_its_polar_factor_too():
    """Squares of 1e-170 vanish in float64: without a unit of its own the matrix had no length, and nothing moved."""
    shapes = [(4, 6), (6, 4)]
    grads = gradients(shapes)
    moved = eps_of(SpectralBall(), shapes, [grads[0], 1e-170 * grads[1]], rho=0.2)
    for eps, g in zip(moved, grads, strict=True):
        torch.testing.assert_close(eps, 0.2 * polar(g), rtol=1e-5, atol=1e-6)


def test_muons_own_iterations_leave_singular_values_near_one():
    """refine=0 is the quintic of Muon alone: no polar factor to many digits, and never far from one."""
    (eps,) = eps_of(SpectralBall(refine=0), [(6, 9)], gradients([(6, 9)]), rho=1.0)
    values = torch.linalg.svdvals(eps)
    assert values.min() > 0.6
    assert values.max() < 1.3
    (better,) = eps_of(SpectralBall(), [(6, 9)], gradients([(6, 9)]), rho=1.0)
    assert (torch.linalg.svdvals(better) - 1).abs().max() < 1e-6 < (values - 1).abs().max()


def test_a_zero_gradient_of_one_matrix_or_of_the_rest_moves_the_others():
    shapes = [(3, 3), (3, 3), (4,)]
    grads = gradients(shapes)
    grads[1].zero_()
    moved = eps_of(SpectralBall(), shapes, grads)
    assert (moved[1] == 0).all()
    torch.testing.assert_close(moved[0], 0.1 * polar(grads[0]), rtol=1e-5, atol=1e-7)
    grads[2].zero_()
    moved = eps_of(SpectralBall(), shapes, grads)
    assert (moved[2] == 0).all()
    assert moved[0].norm() > 0


@pytest.mark.parametrize("check", [*CONTRACT, *SPEED], ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "geometry",
    [
        PNormBall(math.inf),
        PNormBall(1.5),
        SpectralBall(),
        RandomSupport(0.5, inner=SpectralBall()),
        OnlyModules(inner=PNormBall(4.0)),
    ],
    ids=["linf", "p1.5", "spectral", "esam+spectral", "samon+p4"],
)
def test_battery(geometry, check):
    check(lambda model: BiSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, geometry=geometry))


def test_a_training_in_each_ball_learns():
    for geometry, rho in ((PNormBall(math.inf), 0.002), (SpectralBall(), 0.02)):
        model, losses = Net(), []
        opt = SAM(torch.optim.SGD(model.parameters(), lr=0.2), model=model, rho=rho, geometry=geometry)
        for x, y in batches(60):
            for objective in opt.passes():
                loss = objective(model(x), y)
                loss.backward()
            losses.append(loss.item())
            opt.step()
            opt.zero_grad()
        assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
