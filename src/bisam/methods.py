"""The named methods. Each is only its choices; everything else is :class:`~bisam.optimizer.SharpnessAware`.

Each takes ``base``, ``model``, ``rho``, its own numbers, and as ``choices`` every other argument of
:class:`~bisam.optimizer.SharpnessAware`. A choice that is given replaces the method's own: ``GSAM(base, ascent=
LowerBoundLoss(), third_pass=True)`` is BiSAM + GSAM, ``ESAM(base, inner=ScaledBall())`` is ESAM + ASAM.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .bounds import Bound
from .cadence import Adaptive, Every
from .combine import Blend, Reuse, Surrogate
from .direction import Friendly, Smoothed
from .geometry import FisherBall, Geometry, OnlyModules, RandomSupport, ScaledBall
from .objectives import LowerBoundLoss
from .optimizer import SharpnessAware
from .sparse import SparseSupport

__all__ = [
    "AESAM",
    "ASAM",
    "ESAM",
    "GSAM",
    "METHODS",
    "SAM",
    "SAMON",
    "SSAM",
    "WSAM",
    "BiSAM",
    "FisherSAM",
    "FriendlySAM",
    "LookSAM",
    "VaSSO",
]


class SAM(SharpnessAware):
    """Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412): descend from the worst point nearby.

    Climbs the descent objective in the Euclidean ball: eps = rho g / ||g|| (Eq. 2), descends the gradient at w + eps.
    Arguments and errors are those of :class:`~bisam.SharpnessAware`; rho 0.05 suits CIFAR-10, 0.1 to 0.2 CIFAR-100.
    """


class ASAM(SharpnessAware):
    """Adaptive SAM (Kwon et al., ICML 2021, arXiv 2102.11600): SAM in a ball that scales with the weights.

    eps = rho T^2 g / ||T g|| with T = abs(w) + eta (Eq. 8, :class:`~bisam.geometry.ScaledBall`), so rho is relative and
    about ten times that of SAM: 0.5 for CIFAR-10, 1.0 for CIFAR-100.

    Args:
        base: the optimizer that updates the weights.
        rho: radius, >= 0.
        eta: floor of T, >= 0.
        choices: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.5, eta: float = 0.01, **choices: Any) -> None:
        super().__init__(base, rho=rho, **{"geometry": ScaledBall(eta), **choices})


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


class ESAM(SharpnessAware):
    """Efficient SAM (Du et al., ICLR 2022, arXiv 2110.03141): perturb a random share ``beta`` of the weights.

    eps = m / beta * rho g / ||g|| with m drawn for each weight (:class:`~bisam.geometry.RandomSupport`). The other half
    of the method, which descends on the samples whose loss rose most, belongs to the loop:
    :class:`~bisam.loops.SharpestSamples`.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float = 0.05,
        beta: float = 0.6,
        seed: int = 0,
        inner: Geometry | None = None,
        **choices: Any,
    ) -> None:
        super().__init__(base, rho=rho, **{"geometry": RandomSupport(beta, seed, inner), **choices})


class GSAM(SharpnessAware):
    """Surrogate-gap SAM (Zhuang et al., ICLR 2022, arXiv 2203.08065): also close the gap between L(w + eps) and L(w).

    Descends g_s - alpha times the part of g orthogonal to g_s (:class:`~bisam.combine.Surrogate`). In the paper rho
    follows the learning rate: ``RhoScheduler(opt, rho_min=..., lr_min=...)``.
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.05, alpha: float = 0.4, **choices: Any) -> None:
        super().__init__(base, rho=rho, **{"combine": Surrogate(alpha), **choices})


class WSAM(SharpnessAware):
    """Weighted SAM, coupled (Yue et al., KDD 2023, arXiv 2305.15817): sharpness as a regulariser of its own weight.

    Descends a g_s + (1 - a) g with a = gamma / (1 - gamma) (:class:`~bisam.combine.Blend`): 0.5 is SAM, less is nearer
    to the base optimizer, more weighs sharpness more. The authors' code clips both gradients to norm 1 and takes the
    decoupled form by default; this is the coupled one, unclipped.
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.05, gamma: float = 0.9, **choices: Any) -> None:
        if not 0 < gamma < 1:
            raise ValueError(f"gamma={gamma!r} must lie between 0 and 1; 0.5 is SAM")
        super().__init__(base, rho=rho, **{"combine": Blend(gamma / (1 - gamma)), **choices})


class LookSAM(SharpnessAware):
    """LookSAM (Liu et al., CVPR 2022, arXiv 2203.02714): SAM on one step in ``k``, its sharp part reused in between.

    The steps in between descend g + alpha ||g|| / ||g_v|| g_v (:class:`~bisam.combine.Reuse`).
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.05, k: int = 5, alpha: float = 0.7, **choices: Any) -> None:
        super().__init__(base, rho=rho, **{"cadence": Every(k), "combine": Reuse(alpha), **choices})


class FriendlySAM(SharpnessAware):
    """F-SAM (Li et al., CVPR 2024, arXiv 2403.12350): climb the batch's own noise, without the full gradient.

    The direction is g - sigma m, m the running mean of g (:class:`~bisam.direction.Friendly`).
    """

    def __init__(
        self, base: Optimizer, *, rho: float = 0.2, sigma: float = 1.0, decay: float = 0.9, **choices: Any
    ) -> None:
        super().__init__(base, rho=rho, **{"direction": Friendly(sigma, decay), **choices})


class VaSSO(SharpnessAware):
    """VaSSO (Li and Giannakis, NeurIPS 2023, arXiv 2309.15639): climb the running mean of the gradient.

    d = (1 - theta) d + theta g (:class:`~bisam.direction.Smoothed`).
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.05, theta: float = 0.9, **choices: Any) -> None:
        super().__init__(base, rho=rho, **{"direction": Smoothed(theta), **choices})


class SAMON(SharpnessAware):
    """SAM-ON (Mueller et al., NeurIPS 2023, arXiv 2306.04226): perturb the normalisation layers only.

    They are told by their type (:class:`~bisam.geometry.OnlyModules`), so ``model`` is needed; ``types`` names others.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float = 0.5,
        types: Sequence[type[nn.Module]] | None = None,
        inner: Geometry | None = None,
        **choices: Any,
    ) -> None:
        super().__init__(base, rho=rho, **{"geometry": OnlyModules(types, inner), **choices})


class FisherSAM(SharpnessAware):
    """Fisher SAM (Kim et al., ICML 2022, arXiv 2206.04920): the ball is an ellipsoid, 1 + eta g^2 its metric.

    eps = rho f^-1 g / sqrt(g^T f^-1 g) with f = 1 + eta g^2 (:class:`~bisam.geometry.FisherBall`).
    """

    def __init__(self, base: Optimizer, *, rho: float = 0.1, eta: float = 1.0, **choices: Any) -> None:
        super().__init__(base, rho=rho, **{"geometry": FisherBall(eta), **choices})


class SSAM(SharpnessAware):
    """Sparse SAM (Mi et al., NeurIPS 2022, arXiv 2210.05177): only a share 1 - ``sparsity`` of the weights moves.

    ``mask`` is a dict of what :class:`~bisam.sparse.SparseSupport` takes besides: its rule and its schedule.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float = 0.1,
        sparsity: float = 0.5,
        mask: dict[str, Any] | None = None,
        inner: Geometry | None = None,
        **choices: Any,
    ) -> None:
        support = SparseSupport(sparsity, inner=inner, **(mask or {}))
        super().__init__(base, rho=rho, **{"geometry": support, **choices})


class AESAM(SharpnessAware):
    """AE-SAM (Jiang et al., ICLR 2023, arXiv 2304.14647): perturb on the steps whose gradient is large for its time.

    The others cost one pass (:class:`~bisam.cadence.Adaptive`).
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float = 0.05,
        total_steps: int | None = None,
        lambda_1: float = -1.0,
        lambda_2: float = 1.0,
        delta: float = 0.9,
        **choices: Any,
    ) -> None:
        super().__init__(base, rho=rho, **{"cadence": Adaptive(total_steps, lambda_1, lambda_2, delta), **choices})


#: Every named method by its lower-case name.
METHODS: dict[str, type[SharpnessAware]] = {
    method.__name__.lower(): method
    for method in (
        SAM,
        ASAM,
        BiSAM,
        ESAM,
        GSAM,
        WSAM,
        LookSAM,
        FriendlySAM,
        VaSSO,
        SAMON,
        FisherSAM,
        SSAM,
        AESAM,
    )
}
