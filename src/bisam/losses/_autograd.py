"""The lower bound and its closed-form gradient as autograd functions.

With margins F_j = f_j - f_y and p = softmax(mu phi(F)) the gradient is dQ/dF_j = p_j phi'(F_j) for j != y, and the true
class gets minus the sum of the others. Forward and backward save the logits and the target alone; the backward is
written in differentiable operations, so that autograd can differentiate it again.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .bounds import Bound

__all__ = ["BinaryLowerBound", "ExpectedLowerBound", "LowerBound", "lower_bound_slope", "wide_dtype"]

#: Margins of one chunk hold at most this many elements when targets are probabilities (64 MiB in float32).
_CHUNK = 2**24


class LowerBound(torch.autograd.Function):
    """Q of each sample for class indices; saves the logits and the target, and nothing of size (B, K) beside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, bound: Bound, mu: float, ignore_index: int) -> Tensor:
        kept = target != ignore_index
        margin = _margins(logits.to(wide_dtype(logits)), torch.where(kept, target, 0).unsqueeze(-1))
        return torch.where(kept, _smooth_max(bound, mu, margin), 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, ctx.bound, ctx.mu, ctx.ignore_index = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        slope = lower_bound_slope(logits, target, ctx.bound, ctx.mu, ctx.ignore_index, grad)
        return slope, None, None, None, None


class ExpectedLowerBound(torch.autograd.Function):
    """E_{y ~ target} Q(logits, y), class by class in chunks, so that (B, K, K) never stands in memory whole."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, bound: Bound, mu: float) -> Tensor:
        wide = logits.to(wide_dtype(logits))
        return _sum_chunks(wide, lambda margin, _, some: (target[..., some] * _smooth_max(bound, mu, margin)).sum(-1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        wide, bound, mu = logits.to(wide_dtype(logits)), ctx.bound, ctx.mu
        grad = grad.unsqueeze(-1)

        def pull(margin: Tensor, index: Tensor, some: slice) -> Tensor:
            weight = (target[..., some] * grad).unsqueeze(-1)
            return _others(_slopes(bound, mu, margin) * weight, index).sum(-2)

        slope = _sum_chunks(wide, pull).to(logits.dtype)
        if not ctx.needs_input_grad[1]:
            return slope, None, None, None
        values = [_smooth_max(bound, mu, margin) for margin, _, _ in _chunks(wide)]
        return slope, (torch.cat(values, -1) * grad).to(target.dtype), None, None


class BinaryLowerBound(torch.autograd.Function):
    """(1 - t) Q(z) + t Q(-z) of each logit z and probability t of class 1, Q(x) with the margins (0, x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, bound: Bound, mu: float) -> Tensor:
        wrong, right = _both_sides(logits.to(wide_dtype(logits)), bound, mu)
        return (1 - target) * wrong + target * right

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        z, bound, mu = logits.to(wide_dtype(logits)), ctx.bound, ctx.mu
        slope = (1 - target) * _binary_slope(z, bound, mu) - target * _binary_slope(-z, bound, mu)
        slope = (slope * grad).to(logits.dtype)
        if not ctx.needs_input_grad[1]:
            return slope, None, None, None
        wrong, right = _both_sides(z, bound, mu)
        return slope, ((right - wrong) * grad).to(target.dtype), None, None


def lower_bound_slope(
    logits: Tensor, target: Tensor, bound: Bound, mu: float, ignore_index: int, grad: Tensor
) -> Tensor:
    """The gradient (..., K) of the sum of grad * Q over all samples (...), in differentiable operations."""
    kept = target != ignore_index
    index = torch.where(kept, target, 0).unsqueeze(-1)
    margin = _margins(logits.to(wide_dtype(logits)), index)
    slope = _others(_slopes(bound, mu, margin) * grad.unsqueeze(-1), index)
    slope = torch.where(kept.unsqueeze(-1), slope, 0)  # after the product: ignored rows may hold NaN
    return slope.to(logits.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...]) -> None:
    logits, target, ctx.bound, ctx.mu = inputs
    ctx.save_for_backward(logits, target)


def _both_sides(z: Tensor, bound: Bound, mu: float) -> tuple[Tensor, Tensor]:
    """Q of each logit where class 0 is the true one, and where class 1 is."""
    zero = z.new_zeros(()).expand_as(z)
    wrong, right = (_smooth_max(bound, mu, torch.stack([zero, margin], -1)) for margin in (z, -z))
    return wrong, right


def _binary_slope(margin: Tensor, bound: Bound, mu: float) -> Tensor:
    """dQ/dx = sigmoid(mu (phi(x) - phi(0))) phi'(x): the softmax over the two classes is a sigmoid."""
    return torch.sigmoid(mu * (bound.phi(margin) - bound.phi(margin.new_zeros(())))) * bound.slope(margin)


def _sum_chunks(logits: Tensor, term: Callable[[Tensor, Tensor, slice], Tensor]) -> Tensor:
    """Add ``term(margin, index, classes)`` over chunks of candidate classes."""
    return reduce(torch.add, (term(margin, index, some) for margin, index, some in _chunks(logits)))


def _chunks(logits: Tensor) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Margins (..., C, K) against C candidate classes at a time, with their indices (..., C, 1)."""
    classes = logits.shape[-1]
    size = max(1, _CHUNK // max(1, logits.numel()))
    for start in range(0, classes, size):
        some = slice(start, min(start + size, classes))
        index = torch.arange(some.start, some.stop, device=logits.device)
        index = index.expand(*logits.shape[:-1], -1).unsqueeze(-1)
        rows = logits.unsqueeze(-2).expand(*logits.shape[:-1], index.shape[-2], classes)
        yield _margins(rows, index), index, some


def _margins(logits: Tensor, index: Tensor) -> Tensor:
    """F_j = f_j - f_y; equal logits, infinite ones too, have margin 0, so F_y = 0 always."""
    true = logits.gather(-1, index)
    return torch.where(logits == true, 0, logits - true)


def _smooth_max(bound: Bound, mu: float, margin: Tensor) -> Tensor:
    """1/mu log mean_j exp(mu phi(F_j)), held below the maximum that it smooths against rounding."""
    phi = bound.phi(margin)
    if mu < 1:
        return _smooth_max_of_small_mu(mu, phi)
    classes = torch.full((), phi.shape[-1], dtype=phi.dtype, device=phi.device)
    return torch.minimum((torch.logsumexp(mu * phi, -1) - classes.log()) / mu, phi.amax(-1))


def _smooth_max_of_small_mu(mu: float, phi: Tensor) -> Tensor:
    """The same shifted by the maximum, as m + 1/mu log1p(mean_j expm1(mu (phi_j - m))).

    For small mu the logarithm of the sum is nearly log K, and the difference of the two, divided by mu, has no digit
    left. Where the mean nears -1 (many classes far below the maximum) log1p cancels, and the other form serves.
    """
    top = phi.amax(-1, keepdim=True).detach()
    below = mu * (phi - top)
    mean = torch.expm1(below).mean(-1)
    classes = torch.full((), phi.shape[-1], dtype=phi.dtype, device=phi.device)
    far = torch.logsumexp(below, -1) - classes.log()
    return top.squeeze(-1) + torch.where(mean > -0.5, torch.log1p(mean.clamp(min=-0.5)), far).clamp(max=0) / mu


def _slopes(bound: Bound, mu: float, margin: Tensor) -> Tensor:
    """dQ/dF_j = softmax_j(mu phi(F)) phi'(F_j), the closed form of the paper."""
    return torch.softmax(mu * bound.phi(margin), -1) * bound.slope(margin)


def _others(slope: Tensor, index: Tensor) -> Tensor:
    """Give the true class minus the sum over the *other* classes, which no rounding of its own weight disturbs."""
    others = slope.scatter(-1, index, 0.0)
    return others.scatter(-1, index, -others.sum(-1, keepdim=True))


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32, or float64 for float64."""
    return torch.promote_types(tensor.dtype, torch.float32)
