"""Validation of a bound."""

import torch

from bisam.losses.bounds import Bound

__all__ = ["check_bound"]


def check_bound(bound: Bound) -> None:
    """Check that phi(x) <= 1{x > 0}, up to infinite margins, that it rises, and that ``slope`` is its derivative.

    Example:
        >>> from bisam.bounds import TanhBound
        >>> from bisam.testing import check_bound
        >>> check_bound(TanhBound(alpha=2.0))  # raises where it is no bound

    Args:
        bound: yours.

    Raises:
        AssertionError: naming the margin where it fails.
    """
    grid = torch.cat(
        [torch.linspace(-60, 60, 4801, dtype=torch.float64), torch.logspace(-9, 8, 200, dtype=torch.float64)]
    )
    grid = torch.cat([grid, -grid, torch.tensor([0.0, -torch.inf, torch.inf], dtype=torch.float64)]).sort().values
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        x = grid.to(dtype)
        phi = bound.phi(x)
        assert phi.shape == x.shape, f"phi changes the shape {tuple(x.shape)} to {tuple(phi.shape)}"
        assert phi.dtype == dtype, f"phi changes {dtype} to {phi.dtype}"
        assert not phi.isnan().any(), f"phi is NaN at {x[phi.isnan()][0]}"
        above = phi > (x > 0).to(dtype) + slack
        assert not above.any(), f"phi({x[above][0]}) = {phi[above][0]} lies above the 0-1 step"
        assert bool((phi[1:] >= phi[:-1] - slack).all()), "phi falls somewhere"
        slope = bound.slope(x)
        assert bool(slope.isfinite().all()), f"slope is {slope[~slope.isfinite()][0]} at {x[~slope.isfinite()][0]}"
    inner = torch.linspace(-30, 30, 1000, dtype=torch.float64) + 0.0137  # off the round numbers, where kinks are
    step = 1e-6
    numeric = (bound.phi(inner + step) - bound.phi(inner - step)) / (2 * step)
    wrong = (numeric - bound.slope(inner)).abs() > 1e-5
    assert not wrong.any(), f"slope({inner[wrong][0]}) is not the derivative of phi, {numeric[wrong][0]}"
