"""The named methods. Each is only its choices; everything else is :class:`~bisam.optimizer.SharpnessAware`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .bounds import Bound
from .geometry import Geometry, ScaledBall
from .objectives import LowerBoundLoss
from .optimizer import SharpnessAware

__all__ = ["ASAM", "METHODS", "SAM", "BiSAM"]


class SAM(SharpnessAware):
    """Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412).

    Climbs the descent objective in the Euclidean ball: eps = rho g / ||g|| (Eq. 2), descends the gradient at w + eps.
    Arguments and errors are those of :class:`~bisam.SharpnessAware`; rho 0.05 suits CIFAR-10, 0.1 to 0.2 CIFAR-100.
    """


class ASAM(SharpnessAware):
    """Adaptive SAM (Kwon et al., ICML 2021, arXiv 2102.11600): SAM in a ball that scales with the weights.

    eps = rho T^2 g / ||T g|| with T = abs(w) + eta (Eq. 8, :class:`~bisam.geometry.ScaledBall`), so rho is relative and
    about ten times that of SAM: 0.5 for CIFAR-10, 1.0 for CIFAR-100.

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics, and to tell weights from biases by name.
        rho: radius, >= 0.
        eta: floor of T, >= 0.
        geometry: overrides the ball, and ``eta`` with it.
        choices: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.5,
        eta: float = 0.01,
        geometry: Geometry | None = None,
        **choices: Any,
    ) -> None:
        super().__init__(base, model=model, rho=rho, geometry=geometry or ScaledBall(eta), **choices)


class BiSAM(SharpnessAware):
    """BiSAM (Xie et al., ICML 2024, arXiv 2407.12993): climb a lower bound of the 0-1 loss, descend an upper one.

    eps = rho grad Q(w) / ||grad Q(w)|| with Q = :class:`~bisam.LowerBoundLoss`; then the gradient of ``descent`` at
    w + eps (Algorithm 1). The paper descends cross-entropy with label smoothing 0.1. Every other choice combines:
    ``BiSAM(base, geometry=ScaledBall())`` is BiSAM + ASAM.

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0.
        bound: ``"log"`` (mu 1), ``"tanh"`` (mu 10, alpha 0.1), or any :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; None takes the bound's own.
        alpha: slope at zero of a bound given by name, > 0.
        ascent: overrides the lower bound, and ``bound``, ``mu``, ``alpha`` with it.
        descent: objective to descend; its ``ignore_index`` holds for the lower bound too.
        choices: the other arguments of :class:`~bisam.SharpnessAware`.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = BiSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net)
        >>> for loss in opt.passes():
        ...     loss(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        bound: str | Bound = "log",
        mu: float | None = None,
        alpha: float = 0.1,
        ascent: Callable[..., Tensor] | None = None,
        descent: Callable[..., Tensor] = nn.CrossEntropyLoss(),
        **choices: Any,
    ) -> None:
        ignore_index = getattr(descent, "ignore_index", -100)
        lower = LowerBoundLoss(bound, mu, alpha, ignore_index=ignore_index)
        super().__init__(base, model=model, rho=rho, ascent=ascent or lower, descent=descent, **choices)


#: Every named method by its lower-case name.
METHODS: dict[str, type[SharpnessAware]] = {method.__name__.lower(): method for method in (SAM, ASAM, BiSAM)}
