r"""Lower bounds of the 0-1 step, phi(x) <= 1{x > 0}.

A sample with margins F_j = f_j - f_y is misclassified iff max_j F_j > 0, so max_j phi(F_j) bounds its 0-1 loss
from below. BiSAM's adversary climbs a smooth version of that maximum (Xie et al., arXiv 2407.12993). The paper
proposes ``-log`` and ``tanh`` and leaves open which phi is best; every member here obeys the same inequality.

A bound of your own is three lines, and :func:`bisam.testing.check_bound` validates it::

    class Arctan(Bound):
        def phi(self, x):
            return torch.atan(x) / (torch.pi / 2)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .._validation import not_negative, positive

__all__ = [
    "BOUNDS",
    "Bound",
    "LogBound",
    "RampBound",
    "ShiftedBound",
    "SoftsignBound",
    "TanhBound",
    "as_bound",
    "takes_alpha",
]


class Bound(ABC):
    """A function phi with phi(x) <= 1{x > 0} for every x, applied elementwise to margins.

    Subclasses define :meth:`phi`, and :meth:`slope` where a closed form is better than automatic differentiation.

    Example:
        >>> class Arctan(Bound):
        ...     def phi(self, x):
        ...         return torch.atan(x) / (torch.pi / 2)
        >>> opt = bisam.BiSAM(base, model=model, bound=Arctan(), mu=5.0)

    Attributes:
        mu: the sharpness of the smoothed maximum used when the loss is given ``mu=None``.
    """

    mu: float = 10.0

    @abstractmethod
    def phi(self, x: Tensor) -> Tensor:
        """Return the value of phi at each ``x``, which may hold +-inf."""

    def slope(self, x: Tensor) -> Tensor:
        """Return the derivative of phi at each ``x``; differentiable in ``x`` where gradients are recorded."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.phi(x).sum(), x, create_graph=create_graph)
        return slope

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


class LogBound(Bound):
    r"""The paper's ``-log``: phi(x) = 1 - log(1 + e^(gamma - x)) with gamma = log(e - 1).

    Proof: phi increases in x, phi(0) = 1 - log(1 + (e - 1)) = 0 and phi(x) -> 1, so phi <= 0 on x <= 0 and
    phi < 1 beyond. It falls linearly to the left: a sample that is right by a wide margin keeps a gradient,
    weighted by its softmax weight alone.

    It is evaluated as -log1p((1 - 1/e) expm1(-x)), the same function without cancellation, so that phi(0) is exactly
    0 and the sign is right to the last bit; left of -80, where the exponential would overflow, it goes on as a line.

    Example:
        >>> from bisam.bounds import LogBound
        >>> LogBound().phi(torch.tensor([-2.0, 0.0, 8.0]))
        tensor([-1.6171,  0.0000,  0.9994])
    """

    mu = 1.0
    _gamma = math.log(math.e - 1)

    def phi(self, x: Tensor) -> Tensor:
        """Return 1 - softplus(gamma - x)."""
        curve = -torch.log1p((1 - 1 / math.e) * torch.expm1(-x.clamp(min=-80.0)))
        return (curve + (x + 80.0).clamp(max=0.0)).clamp(max=1.0)

    def slope(self, x: Tensor) -> Tensor:
        """Return sigmoid(gamma - x)."""
        return torch.sigmoid(self._gamma - x)


class TanhBound(Bound):
    """The paper's ``tanh``: phi(x) = tanh(alpha x).

    Proof: tanh has the sign of its argument and stays below 1. A scaled sigmoid, 2 sigmoid(2 alpha x) - 1, is
    the same function.

    Example:
        >>> from bisam.bounds import TanhBound
        >>> TanhBound().phi(torch.tensor([0.0, 5.0]))
        tensor([0.0000, 0.4621])

    Args:
        alpha: slope at zero, per unit of logit.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = positive("alpha", alpha)

    def phi(self, x: Tensor) -> Tensor:
        """Return tanh(alpha x)."""
        return torch.tanh(self.alpha * x)

    def slope(self, x: Tensor) -> Tensor:
        """Return alpha (1 - tanh(alpha x)^2), as sech^2 so that large margins keep their digits."""
        e = torch.exp(-2 * self.alpha * x.abs())
        return 4 * self.alpha * e / (1 + e).square()


class RampBound(Bound):
    """Clipped-linear: phi(x) = min(max(alpha x, -1), 1), the ramp loss turned around.

    Proof: alpha x <= 0 where x <= 0, and min(., 1) <= 1 elsewhere. Its gradient is exactly zero outside
    abs(x) < 1/alpha: samples that are surely right, or surely lost, do not steer the perturbation at all.

    Example:
        >>> from bisam.bounds import RampBound
        >>> RampBound(alpha=0.5).phi(torch.tensor([-8.0, 1.0, 8.0]))
        tensor([-1.0000,  0.5000,  1.0000])

    Args:
        alpha: slope at zero, per unit of logit.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = positive("alpha", alpha)

    def phi(self, x: Tensor) -> Tensor:
        """Return alpha x, clipped to [-1, 1]."""
        return (self.alpha * x).clamp(-1.0, 1.0)

    def slope(self, x: Tensor) -> Tensor:
        """Return alpha inside abs(x) < 1/alpha and 0 outside."""
        return self.alpha * ((self.alpha * x).abs() < 1).to(x.dtype)


class SoftsignBound(Bound):
    """Softsign: phi(x) = alpha x / (1 + alpha abs(x)).

    Proof: it has the sign of x and abs(phi) < 1. Its slope falls like 1/x^2 where tanh's falls exponentially, so
    confident samples still count.

    Example:
        >>> from bisam.bounds import SoftsignBound
        >>> SoftsignBound(alpha=1.0).phi(torch.tensor([-1.0, 0.0, 3.0]))
        tensor([-0.5000,  0.0000,  0.7500])

    Args:
        alpha: slope at zero, per unit of logit.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = positive("alpha", alpha)

    def phi(self, x: Tensor) -> Tensor:
        """Return sign(x) (1 - 1 / (1 + alpha abs(x))), finite for infinite margins too."""
        inner = self.alpha * x.clamp(-1e6, 1e6)  # in numerator and denominator, or infinity leaves NaN in a gradient
        small = inner / (1 + inner.abs())
        return torch.where(x.abs() < 1e6, small, x.sign() * (1 - (1 + self.alpha * x.abs()).reciprocal()))

    def slope(self, x: Tensor) -> Tensor:
        """Return alpha / (1 + alpha abs(x))^2."""
        return self.alpha * (1 + self.alpha * x.abs()).reciprocal().square()


class ShiftedBound(Bound):
    """Margin-shifted: phi(x) = inner.phi(x - shift) with shift >= 0.

    Proof: inner.phi(x - shift) <= 1{x > shift} <= 1{x > 0}. It is steepest at margin ``shift``, so it climbs
    towards mistakes that are made with some confidence.

    Example:
        >>> from bisam.bounds import LogBound, ShiftedBound
        >>> opt = bisam.BiSAM(base, model=model, bound=ShiftedBound(LogBound(), shift=0.5), mu=1.0)

    Args:
        inner: the bound to shift.
        shift: in units of logits, not negative.
    """

    def __init__(self, inner: Bound, shift: float = 1.0) -> None:
        if not isinstance(inner, Bound):
            raise TypeError(f"inner={inner!r} must be a Bound, such as TanhBound()")
        self.inner, self.shift, self.mu = inner, not_negative("shift", shift), inner.mu

    def phi(self, x: Tensor) -> Tensor:
        """Return inner.phi(x - shift)."""
        return self.inner.phi(x - self.shift)

    def slope(self, x: Tensor) -> Tensor:
        """Return inner.slope(x - shift)."""
        return self.inner.slope(x - self.shift)

    def __repr__(self) -> str:
        return f"ShiftedBound({self.inner!r}, shift={self.shift!r})"


#: The names that ``bound=`` takes, each with the bound it makes of ``alpha``.
BOUNDS: dict[str, Callable[[float], Bound]] = {
    "log": lambda alpha: LogBound(),
    "tanh": TanhBound,
    "ramp": RampBound,
    "softsign": SoftsignBound,
    "shifted-tanh": lambda alpha: ShiftedBound(TanhBound(alpha)),
}


def takes_alpha(name: str) -> bool:
    """Whether the bound of that name has a slope at zero to set.

    Example:
        >>> from bisam.bounds import takes_alpha
        >>> takes_alpha("tanh"), takes_alpha("log")
        (True, False)
    """
    return name in BOUNDS and name != "log"


def as_bound(bound: "str | Bound", alpha: float | None = None) -> Bound:
    """Return ``bound`` itself, or the bound of that name, with slope ``alpha`` at zero (None: 0.1) if it has one.

    Example:
        >>> from bisam.bounds import as_bound
        >>> as_bound("tanh", alpha=0.5)
        TanhBound(alpha=0.5)

    Raises:
        ValueError: an unknown name, ``alpha <= 0``, or an ``alpha`` that has no effect.
        TypeError: neither a name nor a :class:`Bound`.
    """
    if isinstance(bound, Bound):
        if alpha is not None:
            raise ValueError(f"alpha={alpha!r} has no effect on bound={bound!r}: build the bound with it")
        return bound
    if not isinstance(bound, str):
        raise TypeError(f"bound={bound!r} must be a Bound or one of the names {', '.join(BOUNDS)}")
    if bound not in BOUNDS:
        raise ValueError(f"bound={bound!r} is unknown: choose one of {', '.join(BOUNDS)}, or pass a bisam.Bound")
    if alpha is not None and not takes_alpha(bound):
        raise ValueError(f"alpha={alpha!r} has no effect on bound={bound!r}, which has no slope to set: leave it out")
    return BOUNDS[bound](0.1 if alpha is None else positive("alpha", alpha))
