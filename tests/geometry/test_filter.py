"""The filter-wise ball, against a loop over filters."""

import pytest
import torch
from torch import nn

from bisam import SAM
from bisam._vectors.foreach import slice_norms
from bisam.geometry import FilterBall
from bisam.testing import CONTRACT, SPEED


def textbook(weights, grads, rho, eta):
    """Filter by filter: T = ||f|| + eta; entry by entry where there are no filters (Kwon et al., Sec. 3)."""
    metric = []
    for w in weights:
        t = torch.empty_like(w)
        if w.dim() < 2:
            t = w.abs() + eta
        else:
            for i in range(len(w)):
                t[i] = w[i].norm() + eta
        metric.append(t)
    length = torch.stack([(t * g).square().sum() for t, g in zip(metric, grads, strict=True)]).sum().sqrt()
    return [rho * t**2 * g / length for t, g in zip(metric, grads, strict=True)]


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_every_filter_is_scaled_by_its_own_norm(eta):
    torch.manual_seed(0)
    dtype = torch.float64
    shapes = [(4, 3), (5,), (2, 3, 2, 2), (), (0, 3)]
    params = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    grads = [torch.randn(shape, dtype=dtype) for shape in shapes]
    opt = SAM(torch.optim.SGD(params, lr=0.1), rho=0.1, geometry=FilterBall(eta))
    before, loop = [p.detach().clone() for p in params], opt.passes()
    next(loop)
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    next(loop)
    after = [p.detach().clone() for p in params]
    loop.leave("the test")
    for p, b, expected in zip(after, before, textbook(before, grads, 0.1, eta), strict=True):
        torch.testing.assert_close((p - b), expected, rtol=1e-9, atol=1e-14)


def test_norms_of_tiny_filters_do_not_vanish():
    """Squares of 1e-25 are zero in float32."""
    tiny = torch.full((2, 3), 1e-25)
    (norms,) = slice_norms([tiny], 0.0)
    torch.testing.assert_close(norms, torch.full((2, 3), 1e-25 * 3**0.5), rtol=1e-6, atol=0)


def test_rescaling_a_filter_rescales_its_perturbation():
    """What the ball is for: w -> c w with g -> g / c moves by c eps, so the function is perturbed alike."""
    torch.manual_seed(1)
    w, g = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    moved = []
    for c in (1.0, 100.0):
        factor = torch.tensor([[c], [1.0], [1.0], [1.0]], dtype=torch.float64)
        param = nn.Parameter(w * factor)
        opt = SAM(torch.optim.SGD([param], lr=0.1), rho=0.1, geometry=FilterBall(0.0))
        loop = opt.passes()
        next(loop)
        param.grad = g / factor
        next(loop)
        moved.append((param.detach() - w * factor) / factor)
        loop.leave("the test")
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("check", [*CONTRACT, *SPEED], ids=lambda check: check.__name__)
def test_battery(check):
    check(lambda model: SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, geometry=FilterBall()))
