"""The scale of the losses: it changes nothing, from where squares vanish to where they overflow."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .models import Make, Net, batches

__all__ = ["check_gradient_range", "check_scale"]


class _Run(NamedTuple):
    """Steps on losses that are multiplied by something.

    Attributes:
        norms: ||eps|| of each step, 0 where a cadence did not let it perturb.
        weights: the weights afterwards.
        claim: what the method says of the scale, for messages.
    """

    norms: list[float]
    weights: list[Tensor]
    claim: str


def check_scale(make: Make) -> None:
    """Ever larger losses change nothing: for a method that says so untold, for one that needs the scale once told.

    They are multiplied by 1024, 2048 and 4096, powers of two, so the perturbations are the same to the bit. A method
    that compares or averages gradients over steps sees another scale in each, as under ``GradScaler``.
    """
    plain, scaled = _run(make, (1.0,) * 3, torch.float64), _run(make, (1024.0, 2048.0, 4096.0), torch.float64)
    _compare(plain, scaled, "1024, 2048 and 4096", 1e-9, 1e-12)


def check_gradient_range(make: Make) -> None:
    """Losses times 1e-25 and 1e25 change nothing either, in float64 and in float32, which cannot hold their squares.

    A sum of squares of such gradients is 0 or infinite in float32, and then nothing would move. The scales are powers
    of two. So only gradients that are tiny even beside the others lose digits, and the tolerance is float32's.
    """
    for dtype in (torch.float64, torch.float32):
        plain = _run(make, (1.0,) * 6, dtype)
        for scale, power in (("1e-25", -83), ("1e25", 83)):
            _compare(plain, _run(make, (2.0**power,) * 6, dtype), f"{scale} in {dtype}", 1e-4, 1e-4)


def _run(make: Make, scales: Sequence[float], dtype: torch.dtype) -> _Run:
    """Train a step on losses times each of ``scales``, which is taken out of the gradients before the step."""
    model, norms = Net().to(dtype), []
    opt = make(model)
    needs_scale = opt.estimator.needs_scale
    for scale, (x, y) in zip(scales, batches(len(scales)), strict=True):
        for objective in opt.passes(grad_scale=scale if needs_scale else None):
            (objective(model(x.to(dtype)), y) * scale).backward()
        norms.append(opt.last.norm)
        for param in model.parameters():
            if param.grad is not None:
                param.grad /= scale
        opt.step()
        opt.zero_grad()
    claim = "declares needs_scale and was told" if needs_scale else "does not declare needs_scale"
    return _Run(norms, [param.detach().clone() for param in model.parameters()], claim)


def _compare(plain: _Run, scaled: _Run, times: str, rtol: float, weight_rtol: float) -> None:
    for ours, theirs in zip(plain.norms, scaled.norms, strict=True):
        assert abs(ours - theirs) <= rtol * max(ours, theirs), (
            f"||eps|| is {ours} and with losses times {times} {theirs}, though the method {plain.claim}"
        )
    for own, other in zip(plain.weights, scaled.weights, strict=True):
        torch.testing.assert_close(
            own,
            other,
            rtol=weight_rtol,
            atol=weight_rtol / 100,
            msg=lambda m: f"with losses times {times} weights differ, though the method {plain.claim}: {m}",
        )
