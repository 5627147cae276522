"""The lower bound's fast path, bound by bound: weights and slopes of a block of margins in few in-place sweeps.

For a bound phi and margins F the weights are w_j = exp(mu phi(F_j)). With S = sum_j w_j the value is
Q = 1/mu log(S / K), and dQ/dF_j = w_j phi'(F_j) / S. As phi <= 1 no maximum is subtracted while mu is moderate.

Where phi(0) = 0, the weight of F = 0 is exactly 1, and that of F < 0 is at most 1. So a sum over K classes without a
mistake is at most K after any rounding, and Q <= 0. The exponentials are powers of 2, whose kernel is the fastest.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .bounds import Bound, LogBound, RampBound, ShiftedBound, SoftsignBound, TanhBound

__all__ = ["Buffers", "Sweeps", "sweeps_of"]

#: Sums of exp(mu) over 2^24 classes stay finite in float32.
_LARGEST_MU = 60.0

_LOG2_E = 1 / math.log(2)
_OPS = torch.ops.aten

Buffers = Sequence[Tensor | None]


class Sweeps(ABC):
    """Makes of a block's margins first the weights, then the slopes; overwrites what it is given.

    Attributes:
        buffers: how many tensors of the margins' shape it needs beside them.
        factor: what the slopes that it returns lack.
        holes: whether slopes are NaN where they are 0, in classes that are lost by 88 and more.
    """

    buffers: int
    factor: float
    holes = False

    @abstractmethod
    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        """Return the weights (n, K) of margins (n, K), and what :meth:`slopes` needs beside them.

        Args:
            margin: overwritten.
            out: where to write, as many as there are ``buffers``; None makes a new tensor.
        """

    @abstractmethod
    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        """Return w_j phi'(F_j) / factor (n, K), in place of the margins, of what :meth:`weights` has ``made``."""


class _Log(Sweeps):
    """With mu = 1: w = 1 / (a + b e^-F) with a = 1/e and b = 1 - a, and phi' = b e^-F w.

    This is w = e sigmoid(F - gamma). Neither w nor phi' loses digits where the other is close to its limit.
    """

    buffers = 1
    holes = True  # e^-F is infinite, and w is 0

    def __init__(self, dtype: torch.dtype) -> None:
        b = _constant(1 - 1 / math.e, dtype)
        self.a, self.factor = (1 - b.double()).to(dtype), b.item()  # a + b is exactly 1
        self.scale = _constant(-_LOG2_E, dtype)

    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        return (torch.add(self.a, margin.mul_(self.scale).exp2_(), alpha=self.factor, out=out[0]).reciprocal_(),)

    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        return margin.mul_(made[0]).mul_(made[0])


class _Tanh(Sweeps):
    """With q = sigmoid(-2 alpha abs(F)): phi = sign(F) (1 - 2 q) and phi' = 4 alpha q (1 - q), exact at both ends."""

    buffers = 2

    def __init__(self, alpha: float, mu: float, dtype: torch.dtype) -> None:
        self.slope, self.factor = _constant(-2 * alpha, dtype), 4 * alpha
        self.top = _constant(mu * _LOG2_E, dtype)
        self.twice = 2 * self.top.item()

    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        q = torch.abs(margin, out=out[0]).mul_(self.slope).sigmoid_()
        size = torch.sub(self.top, q, alpha=self.twice, out=out[1])
        signed = _OPS.leaky_relu_backward.grad_input(size, margin, -1.0, False, grad_input=size)
        return signed.exp2_(), q

    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        slope: Tensor = _OPS.sigmoid_backward.grad_input(*made, grad_input=margin)
        return slope


class _Ramp(Sweeps):
    """phi = clip(alpha F, -1, 1), phi' = alpha inside."""

    buffers = 1

    def __init__(self, alpha: float, mu: float, dtype: torch.dtype) -> None:
        self.factor, self.scale = alpha, mu * _LOG2_E

    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        return (torch.clamp(margin.mul_(self.factor), -1.0, 1.0, out=out[0]).mul_(self.scale).exp2_(),)

    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        slope: Tensor = _OPS.hardtanh_backward.grad_input(made[0], margin, -1.0, 1.0, grad_input=margin)
        return slope


class _Softsign(Sweeps):
    """With D = 1 + alpha abs(F): phi = alpha F / D and phi' = alpha / D^2; infinite margins are cut where phi is 1."""

    buffers = 2

    def __init__(self, alpha: float, mu: float, dtype: torch.dtype) -> None:
        self.factor, self.scale, self.limit = alpha, alpha * mu * _LOG2_E, 1e30 / max(1.0, alpha)
        self.one = _constant(1.0, dtype)

    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        size = torch.abs(margin.clamp_(-self.limit, self.limit), out=out[0])
        divisor = torch.add(self.one, size, alpha=self.factor, out=size)
        return torch.div(margin, divisor, out=out[1]).mul_(self.scale).exp2_(), divisor

    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        return torch.div(*made, out=margin).div_(made[1])


class _Shifted(Sweeps):
    """The inner bound's, of F - shift."""

    def __init__(self, inner: Sweeps, shift: float) -> None:
        self.inner, self.shift = inner, shift
        self.buffers, self.factor, self.holes = inner.buffers, inner.factor, inner.holes

    def weights(self, margin: Tensor, out: Buffers) -> tuple[Tensor, ...]:
        return self.inner.weights(margin.sub_(self.shift), out)

    def slopes(self, margin: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        return self.inner.slopes(margin, made)


_OF_ALPHA: dict[type[Bound], type[Sweeps]] = {TanhBound: _Tanh, RampBound: _Ramp, SoftsignBound: _Softsign}


def _constant(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor on the CPU, whatever the user's default device: it is kept, and goes with every device."""
    return torch.tensor(value, dtype=dtype, device="cpu")


@lru_cache(maxsize=64)
def _made(kind: type[Sweeps], *numbers: Any) -> Sweeps:
    """Build sweeps once for each choice of numbers: their constants are tensors."""
    return kind(*numbers)


def sweeps_of(bound: Bound, mu: float, dtype: torch.dtype) -> Sweeps | None:
    """Return the sweeps of a bound, or None where the general path must serve.

    That is a bound of the user's own (also a subclass, whose phi may differ), and a mu that is large enough to
    overflow or small enough to leave log(S / K) / mu no digits; -log knows mu = 1 alone.
    """
    kind = type(bound)
    if kind is LogBound:
        return _made(_Log, dtype) if mu == 1 else None
    if not 1 <= mu <= _LARGEST_MU:
        return None
    if isinstance(bound, (TanhBound, RampBound, SoftsignBound)) and kind in _OF_ALPHA:
        return _made(_OF_ALPHA[kind], bound.alpha, mu, dtype)
    if isinstance(bound, ShiftedBound) and kind is ShiftedBound:
        inner = sweeps_of(bound.inner, mu, dtype)
        return None if inner is None else _Shifted(inner, bound.shift)
    return None
