"""The named methods. Each is an entry of data, its :class:`~bisam.method.Method`, and a class that passes it on.

Each takes ``base``, ``model``, ``rho``, its own numbers, and as ``options`` every other argument of
:class:`~bisam.optimizer.SharpnessAware`. A choice that is given replaces the method's own: ``GSAM(base, ascent=
LowerBoundLoss(), third_pass=True)`` is BiSAM + GSAM, ``ESAM(base, inner=ScaledBall())`` is ESAM + ASAM. A number that
then has no effect is refused.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

from ._validation import positive
from .ascent import BaseMomentum, LastGradient
from .cadence import Adaptive, Every, Tail
from .combine import Blend, Combine, Decoupled, Renormalise, Reuse, Surrogate
from .direction import Friendly, Smoothed
from .geometry import FisherBall, Geometry, OnlyModules, RandomSupport, ScaledBall, SparseSupport
from .losses.bounds import Bound
from .losses.descents import lower_bound_for
from .losses.functional_sam import OutputGradient
from .method import Method
from .optimizer import SharpnessAware
from .radius import LossBudget, PartlyNormalised

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .optimizer import Options

__all__ = [
    "AESAM",
    "ASAM",
    "ESAM",
    "GSAM",
    "LESAM",
    "METHODS",
    "SAM",
    "SAMON",
    "SSAM",
    "USAM",
    "WSAM",
    "AsyncSAM",
    "BiSAM",
    "FisherSAM",
    "FriendlySAM",
    "FunctionalSAM",
    "LookSAM",
    "MomentumSAM",
    "StableSAM",
    "TailSAM",
    "VaSSO",
]


class SAM(SharpnessAware):
    """Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412): descend from the worst point nearby.

    Climbs the descent objective in the Euclidean ball: eps = rho g / ||g|| (Eq. 2). Descends the gradient at w + eps.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = SAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, rho=0.1)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the paper's for CIFAR-10; 0.1 to 0.2 suits CIFAR-100.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "SAM",
        "descend from the worst point nearby",
        "Foret et al., ICLR 2021",
        "2010.01412",
    )

    def __init__(
        self, base: Optimizer, *, model: nn.Module | None = None, rho: float = 0.05, **options: "Unpack[Options]"
    ) -> None:
        super().__init__(base, model=model, rho=rho, **options)


class ASAM(SharpnessAware):
    """Adaptive SAM (Kwon et al., ICML 2021, arXiv 2102.11600): SAM in a ball that scales with the weights.

    eps = rho T^2 g / ||T g|| with T = abs(w) + eta (Eq. 8, :class:`~bisam.geometry.ScaledBall`). So rho is relative,
    about ten times that of SAM.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = ASAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, rho=1.0)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; it tells weights from biases.
        rho: radius, >= 0. The default is the paper's for CIFAR-10; 1.0 for CIFAR-100.
        eta: floor of T, >= 0, which keeps weights at zero movable. The default is the paper's; the authors' run script
            takes 0.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "ASAM",
        "SAM in a ball that scales with the weights",
        "Kwon et al., ICML 2021",
        "2102.11600",
        rho=0.5,
        choices={"geometry": lambda eta=0.01: ScaledBall(eta)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.5,
        eta: float = 0.01,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, eta=eta))


class BiSAM(SharpnessAware):
    """BiSAM (Xie et al., ICML 2024, arXiv 2407.12993): climb a lower bound of the 0-1 loss, descend an upper one.

    eps = rho grad Q(w) / ||grad Q(w)|| with Q = :class:`~bisam.LowerBoundLoss`; then the gradient of ``descent`` at
    w + eps (Algorithm 1). The paper descends cross-entropy with label smoothing 0.1. Every other choice combines:
    ``BiSAM(base, geometry=ScaledBall())`` is BiSAM + ASAM.

    Q belongs to the task, which ``descent`` tells. Under ``nn.BCEWithLogitsLoss()`` (one logit, or several labels a
    sample) it is :class:`~bisam.BinaryLowerBoundLoss`, under :class:`~bisam.CausalLMLoss` that of the next token.
    Losses of numbers, such as ``nn.MSELoss()``, have no 0-1 loss and are refused.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = BiSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, bound="tanh")
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the paper's.
        bound: ``"log"``, ``"tanh"``, another name of :data:`bisam.bounds.BOUNDS`, or any :class:`~bisam.Bound`. The
            paper has both ``"log"`` and ``"tanh"``; the default is the one that departs from SAM.
        mu: sharpness of the smoothed maximum, > 0; None takes the bound's own, which for ``"log"`` (1) and ``"tanh"``
            (10) is the paper's.
        alpha: slope at zero of a bound given by name, > 0; None means 0.1, the paper's for ``"tanh"``. ``"log"`` has
            none.
        options: the other arguments of :class:`~bisam.SharpnessAware`; the ``ignore_index`` of ``descent`` holds for
            the lower bound too. With ``ascent=`` Q is what you say.

    Raises:
        ValueError: a ``descent`` without classes and no ``ascent``; a number without effect.
    """

    method = Method(
        "BiSAM",
        "climb a lower bound of the 0-1 loss, descend an upper one",
        "Xie et al., ICML 2024",
        "2407.12993",
        choices={"ascent": lower_bound_for},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        bound: str | Bound = "log",
        mu: float | None = None,
        alpha: float | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, bound=bound, mu=mu, alpha=alpha))


class ESAM(SharpnessAware):
    """Efficient SAM (Du et al., ICLR 2022, arXiv 2110.03141): perturb a random fraction ``beta`` of the weights.

    eps = m / beta * rho g / ||g|| with m drawn for each weight (:class:`~bisam.geometry.RandomSupport`). The authors'
    code draws whole tensors instead, and takes the norm over those that move: write ``unit="tensor"``. Its eps is the
    longer one, rho / beta. The other half of the method, which descends on the samples whose loss rose most, belongs to
    the loop: :class:`~bisam.loops.SharpestSamples`.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = ESAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, beta=0.5)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's, and the authors' for a ResNet-18 on CIFAR; for wider ones 0.1 and 0.2.
        beta: fraction of the weights that move, in (0, 1]. The default is the authors' for a ResNet-18 on CIFAR; for
            wider ones they take 0.5.
        seed: of the draws; 0 is ours.
        unit: what is drawn: ``"weight"``, or ``"tensor"`` as in the authors' code.
        inner: the set that eps comes from; None is the Euclidean ball.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "ESAM",
        "perturb a random fraction `beta` of the weights",
        "Du et al., ICLR 2022",
        "2110.03141",
        choices={
            "geometry": lambda beta=0.6, seed=0, unit="weight", inner=None: RandomSupport(beta, seed, inner, unit=unit)
        },
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        beta: float = 0.6,
        seed: int = 0,
        unit: str = "weight",
        inner: Geometry | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(
            base,
            model=model,
            rho=rho,
            **self.method.options(options, beta=beta, seed=seed, unit=unit, inner=inner),
        )


class GSAM(SharpnessAware):
    """Surrogate-gap SAM (Zhuang et al., ICLR 2022, arXiv 2203.08065): also close the gap between L(w + eps) and L(w).

    Descends g_s - alpha times the part of g orthogonal to g_s (:class:`~bisam.combine.Surrogate`). In the paper rho
    follows the learning rate: ``RhoScheduler(opt, rho_min=..., lr_min=...)``.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = GSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, alpha=0.2)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's; the paper tunes it.
        alpha: weight of the orthogonal part, >= 0; 0 is SAM. The default is the paper's for a ViT.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "GSAM",
        "also close the gap between L(w + eps) and L(w)",
        "Zhuang et al., ICLR 2022",
        "2203.08065",
        passes="2 (3)",
        choices={"combine": lambda alpha=0.4: Surrogate(alpha)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        alpha: float = 0.4,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, alpha=alpha))


def _weighted(gamma: float = 0.9, decoupled: bool = False) -> Combine:
    if not 0 < positive("gamma", gamma) < 1:
        raise ValueError(f"gamma={gamma!r} must lie between 0 and 1; 0.5 is SAM")
    if not isinstance(decoupled, bool):
        raise TypeError(f"decoupled={decoupled!r} must be True or False")
    return (Decoupled if decoupled else Blend)(gamma / (1 - gamma))


class WSAM(SharpnessAware):
    """Weighted SAM (Yue et al., KDD 2023, arXiv 2305.15817): sharpness as a regulariser with its own weight.

    With a = gamma / (1 - gamma) there are two forms. The coupled one descends a g_s + (1 - a) g
    (:class:`~bisam.combine.Blend`); gamma 0.5 is SAM, less is nearer to the base optimizer, more weighs sharpness more.
    The decoupled one lets the base optimizer descend g, and then takes w <- w - lr a (g_s - g)
    (:class:`~bisam.combine.Decoupled`). Under SGD without momentum they are the same.

    **The authors' code takes the decoupled form by default: write** ``decoupled=True``. The default here is the coupled
    one, because only there is ``p.grad`` all that the step descends, so that clipping reaches it. Neither form clips,
    as in the authors' code by default.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = WSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, gamma=0.8)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's; the paper tries 0.05 to 0.2.
        gamma: weight of the sharpness, in (0, 1). The default is the paper's.
        decoupled: keep sharpness out of the base optimizer's update, as the authors' code does by default.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "WSAM",
        "sharpness as a regulariser with its own weight",
        "Yue et al., KDD 2023",
        "2305.15817",
        passes="2 (3)",
        choices={"combine": _weighted},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        gamma: float = 0.9,
        decoupled: bool = False,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, gamma=gamma, decoupled=decoupled))


class LookSAM(SharpnessAware):
    """LookSAM (Liu et al., CVPR 2022, arXiv 2203.02714): SAM on one step in ``k``, its sharp part reused in between.

    The steps in between descend g + alpha ||g|| / ||g_v|| g_v (:class:`~bisam.combine.Reuse`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = LookSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, k=10)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's; implementations of others take 0.1.
        k: length of the cycle, >= 1. The default is the paper's smaller one; it also has 10.
        alpha: length of the reused part relative to ||g||, >= 0. The default is the paper's.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "LookSAM",
        "SAM on one step in `k`, its sharp part reused in between",
        "Liu et al., CVPR 2022",
        "2203.02714",
        passes="1 + 1/k (1 + 2/k)",
        choices={"cadence": lambda k=5: Every(k), "combine": lambda alpha=0.7: Reuse(alpha)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        k: int = 5,
        alpha: float = 0.7,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, k=k, alpha=alpha))


class FriendlySAM(SharpnessAware):
    """F-SAM (Li et al., CVPR 2024, arXiv 2403.12350): climb the noise of the batch, without the full gradient.

    The direction is g - sigma m, with m the running mean of g (:class:`~bisam.direction.Friendly`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = FriendlySAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, decay=0.6)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the paper's for CIFAR-100.
        sigma: factor of the mean that is subtracted, >= 0. The default is the paper's.
        decay: lambda, the weight of the old mean, in (0, 1]. The default is the paper's; its runs take 0.6.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "FriendlySAM",
        "climb the noise of the batch, without the full gradient",
        "Li et al., CVPR 2024",
        "2403.12350",
        rho=0.2,
        choices={"direction": lambda sigma=1.0, decay=0.9: Friendly(sigma, decay)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.2,
        sigma: float = 1.0,
        decay: float = 0.9,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, sigma=sigma, decay=decay))


class VaSSO(SharpnessAware):
    """VaSSO (Li and Giannakis, NeurIPS 2023, arXiv 2309.15639): climb the running mean of the gradient.

    d = (1 - theta) d + theta g (:class:`~bisam.direction.Smoothed`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = VaSSO(torch.optim.SGD(net.parameters(), lr=0.1), model=net, theta=0.4)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's.
        theta: weight of the new gradient, in (0, 1]. The default is the paper's.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "VaSSO",
        "climb the running mean of the gradient",
        "Li and Giannakis, NeurIPS 2023",
        "2309.15639",
        choices={"direction": lambda theta=0.9: Smoothed(theta)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        theta: float = 0.9,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, theta=theta))


class SAMON(SharpnessAware):
    """SAM-ON (Mueller et al., NeurIPS 2023, arXiv 2306.04226): perturb the normalisation layers only.

    They are told by their type (:class:`~bisam.geometry.OnlyModules`), so ``model`` is needed. By default the authors'
    script takes ASAM's ball over them, ASAM-ON, with the same rho: write ``inner=ScaledBall(0.0)``. Where the group of
    the normalisation layers has radius 0, nothing moves.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> opt = SAMON(torch.optim.SGD(net.parameters(), lr=0.1), model=net, rho=1.0)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed to find the layers.
        rho: radius, >= 0. The default is the paper's.
        types: module classes to perturb instead; None means torch's normalisation layers.
        inner: the set over their parameters; None is the Euclidean ball.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "SAMON",
        "perturb the normalisation layers only",
        "Mueller et al., NeurIPS 2023",
        "2306.04226",
        rho=0.5,
        choices={"geometry": lambda types=None, inner=None: OnlyModules(types, inner)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.5,
        types: Sequence[type[nn.Module]] | None = None,
        inner: Geometry | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, types=types, inner=inner))


class FisherSAM(SharpnessAware):
    """Fisher SAM (Kim et al., ICML 2022, arXiv 2206.04920): the set is an ellipsoid with the metric 1 + eta g^2.

    eps = rho f^-1 g / sqrt(g^T f^-1 g) with f = 1 + eta g^2 (:class:`~bisam.geometry.FisherBall`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = FisherSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, eta=0.5)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the paper's.
        eta: weight of the Fisher information, >= 0; 0 is SAM. The default is the paper's.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "FisherSAM",
        "the set is an ellipsoid with the metric 1 + eta g^2",
        "Kim et al., ICML 2022",
        "2206.04920",
        rho=0.1,
        choices={"geometry": lambda eta=1.0: FisherBall(eta)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.1,
        eta: float = 1.0,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, eta=eta))


def _sparse_support(
    sparsity: float = 0.5,
    rule: str = "dynamic",
    every: int | None = None,
    drop_rate: float | None = None,
    total_steps: int | None = None,
    seed: int | None = None,
    inner: Geometry | None = None,
) -> SparseSupport:
    return SparseSupport(
        sparsity, rule, every=every, drop_rate=drop_rate, total_steps=total_steps, seed=seed, inner=inner
    )


class SSAM(SharpnessAware):
    """Sparse SAM (Mi et al., NeurIPS 2022, arXiv 2210.05177): only a fraction 1 - ``sparsity`` of the weights moves.

    The mask and its two rules are those of :class:`~bisam.geometry.SparseSupport`. The numbers from ``every`` to
    ``seed`` belong to the dynamic mask; ``rule="fisher"`` refuses them.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = SSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, sparsity=0.8, every=10)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the README's of the authors' code; its arguments default to 0.05.
        sparsity: fraction of the weights that rest, in (0, 1). The default is the README's of the authors' code; its
            arguments default to 0.2.
        rule: ``"dynamic"`` (SSAM-D) or ``"fisher"`` (SSAM-F, :func:`bisam.loops.learn_fisher_mask`).
        every: steps between changes of the mask, >= 1; None is 100 (the authors: five epochs).
        drop_rate: of the changes, in (0, 1]; None is 0.5, the authors'.
        total_steps: length of the training; None keeps the drop rate.
        seed: of the draws; None is 0.
        inner: the set that eps comes from; None is the Euclidean ball.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "SSAM",
        "only a fraction 1 - `sparsity` of the weights moves",
        "Mi et al., NeurIPS 2022",
        "2210.05177",
        rho=0.1,
        choices={"geometry": _sparse_support},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.1,
        sparsity: float = 0.5,
        rule: str = "dynamic",
        every: int | None = None,
        drop_rate: float | None = None,
        total_steps: int | None = None,
        seed: int | None = None,
        inner: Geometry | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(
            base,
            model=model,
            rho=rho,
            **self.method.options(
                options,
                sparsity=sparsity,
                rule=rule,
                every=every,
                drop_rate=drop_rate,
                total_steps=total_steps,
                seed=seed,
                inner=inner,
            ),
        )


class AESAM(SharpnessAware):
    """AE-SAM (Jiang et al., ICLR 2023, arXiv 2304.14647): perturb on the steps whose gradient is large for its time.

    The other steps cost one pass (:class:`~bisam.cadence.Adaptive`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = AESAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, total_steps=1000)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's.
        total_steps: length of the training; None keeps the threshold at the middle of its two ends.
        lambda_1: threshold at the end, in standard deviations. The default is the paper's.
        lambda_2: threshold at the start. The default is the paper's.
        delta: weight of the old moments, in (0, 1]. The default is the paper's.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "AESAM",
        "perturb on the steps whose gradient is large for its time",
        "Jiang et al., ICLR 2023",
        "2304.14647",
        passes="1 to 2 (1 to 3)",
        choices={
            "cadence": lambda total_steps=None, lambda_1=-1.0, lambda_2=1.0, delta=0.9: Adaptive(
                total_steps, lambda_1, lambda_2, delta
            )
        },
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        total_steps: int | None = None,
        lambda_1: float = -1.0,
        lambda_2: float = 1.0,
        delta: float = 0.9,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(
            base,
            model=model,
            rho=rho,
            **self.method.options(options, total_steps=total_steps, lambda_1=lambda_1, lambda_2=lambda_2, delta=delta),
        )


def _tail(total_steps: int | None = None, tail: float = 0.2) -> Tail:
    if total_steps is None:
        raise ValueError(
            "TailSAM needs total_steps=, the number of opt.step() calls of the whole training: epochs * len(loader)"
        )
    return Tail(total_steps, tail)


class TailSAM(SharpnessAware):
    """SAM in the tail (Zhou et al., ICLR 2025, arXiv 2410.10373): plain steps first, SAM in the last part of training.

    The tail is aligned with the learning-rate schedule: both count ``step()`` calls (:class:`~bisam.cadence.Tail`). The
    optimizer warns, once, if the training ends before the tail begins, or goes on beyond ``total_steps``.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = TailSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, total_steps=10, tail=0.2)
        >>> for step in range(10):
        ...     for objective in opt.passes():  # two passes in the last two steps, one before
        ...         objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        ...     opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's.
        total_steps: number of ``step()`` calls of the whole training, >= 1. It must be given.
        tail: fraction of the training that perturbs, in (0, 1]. The default is ours; papers take 0.1 to 0.6.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "TailSAM",
        "plain steps first, SAM in the last part of training",
        "Zhou et al., ICLR 2025",
        "2410.10373",
        passes="1 + tail",
        choices={"cadence": _tail},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        total_steps: int | None = None,
        tail: float = 0.2,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, total_steps=total_steps, tail=tail))


class MomentumSAM(SharpnessAware):
    """MSAM (Becker et al., arXiv 2401.12033): perturb along the base optimizer's momentum, without a pass of its own.

    The gradient is taken at w - rho v / ||v|| with the momentum v, as in the paper and its authors' code: **against**
    v, along the coming update (:class:`~bisam.ascent.BaseMomentum`). The paper calls it MSAM; mSAM is another method
    (:func:`~bisam.loops.micro_batches`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = MomentumSAM(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), model=net, rho=0.3)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is the authors' for CIFAR-100; theirs for ImageNet is 0.3.
        uphill: climb along +v instead. The default is the paper's.
        key: name of the momentum in the base optimizer's state; None finds that of SGD, Adam, Muon and Lion.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "MomentumSAM",
        "perturb along the base optimizer's momentum, without a pass of its own",
        "Becker et al., 2024",
        "2401.12033",
        rho=3.0,
        rho_of_sam=0.3,
        passes="1",
        choices={"ascent": lambda uphill=False, key=None: BaseMomentum(uphill, key)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 3.0,
        uphill: bool = False,
        key: str | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, uphill=uphill, key=key))


class AsyncSAM(SharpnessAware):
    """AsyncSAM in one pass (Jo et al., arXiv 2503.11147): climb the gradient of the step before.

    The paper computes that stale gradient beside the update, on a second device. Here it is the one that the step
    before has descended (:class:`~bisam.ascent.LastGradient`). The first step is plain.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = AsyncSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's; the paper's could not be checked.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "AsyncSAM",
        "climb the gradient of the step before, without a pass of its own",
        "Jo et al., 2025",
        "2503.11147",
        passes="1",
        choices={"ascent": lambda: LastGradient()},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options))


class USAM(SharpnessAware):
    """Unified SAM (Oikonomou and Loizou, ICLR 2025, arXiv 2503.02225): normalise the perturbation only in part.

    eps = rho (1 - lambda + lambda / ||g||) g (:class:`~bisam.radius.PartlyNormalised`).

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = USAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, lambda_=0.9)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's.
        lambda_: weight of the normalised form, in [0, 1]: 1 is SAM, 0 the unnormalised SAM. The default is ours.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "USAM",
        "normalise the perturbation only in part",
        "Oikonomou and Loizou, ICLR 2025",
        "2503.02225",
        choices={"radius": lambda lambda_=0.5: PartlyNormalised(lambda_)},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        lambda_: float = 0.5,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options, lambda_=lambda_))


class LESAM(SharpnessAware):
    """LE-SAM (Wang et al., ICML 2026, arXiv 2605.10183): fix the rise of the loss, not the radius.

    The radius is min(sigma / ||g||, rho) (:class:`~bisam.radius.LossBudget`). The formula is read off a summary; the
    paper's constants could not be checked.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = LESAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, sigma=0.05)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: largest radius, >= 0. The default is ours.
        sigma: first-order rise of the loss, > 0. The default is ours.
        total_steps: length of the training, at whose end sigma falls to 0; None keeps sigma.
        anneal: fraction of the training over which sigma falls, in (0, 1]; None is 0.25, ours. It needs
            ``total_steps``.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "LESAM",
        "fix the rise of the loss, not the radius",
        "Wang et al., ICML 2026",
        "2605.10183",
        rho=0.5,
        choices={
            "radius": lambda sigma=0.1, total_steps=None, anneal=None: LossBudget(sigma, total_steps, anneal),
        },
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.5,
        sigma: float = 0.1,
        total_steps: int | None = None,
        anneal: float | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(
            base,
            model=model,
            rho=rho,
            **self.method.options(options, sigma=sigma, total_steps=total_steps, anneal=anneal),
        )


class StableSAM(SharpnessAware):
    """StableSAM (Tan et al., JMLR 2025, arXiv 2401.07250): the gradient keeps the norm that it has at w.

    Descends g_s ||g|| / ||g_s|| (:class:`~bisam.combine.Renormalise`). The paper calls it SSAM too, which is also the
    name of Sparse SAM.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = StableSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "StableSAM",
        "the gradient keeps the norm that it has at w",
        "Tan et al., JMLR 2025",
        "2401.07250",
        passes="2 (3)",
        choices={"combine": lambda: Renormalise()},
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options))


def _functional(
    ascent: Callable[..., Tensor] | None, descent: Callable[..., Tensor]
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    pair = OutputGradient(descent, ascent)
    return pair.at_w, pair


class FunctionalSAM(SharpnessAware):
    """Functional SAM (Singh et al., ICML 2025, arXiv 2502.02407): the Jacobian at w + eps, the loss's gradient at w.

    Descends J(w + eps)^T dL/dlogits(w), for language models above all
    (:class:`~bisam.losses.functional_sam.OutputGradient`). ``FunctionalSAM(base, ascent=LowerBoundLoss())`` is BiSAM +
    Functional SAM. Every pass must see the same samples, and the objective must be called with the logits themselves.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> opt = FunctionalSAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net)
        >>> for objective in opt.passes():
        ...     objective(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        >>> opt.step()

    Args:
        base: the optimizer that updates the weights.
        model: the network; needed where it keeps running statistics.
        rho: radius, >= 0. The default is SAM's; the paper tunes it.
        options: the other arguments of :class:`~bisam.SharpnessAware`.
    """

    method = Method(
        "FunctionalSAM",
        "take the Jacobian at w + eps and the loss's gradient at w",
        "Singh et al., ICML 2025",
        "2502.02407",
        couple=_functional,
    )

    def __init__(
        self,
        base: Optimizer,
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        **options: "Unpack[Options]",
    ) -> None:
        super().__init__(base, model=model, rho=rho, **self.method.options(options))


#: Every named method by its lower-case name.
METHODS: dict[str, Method] = {
    entry.name.lower(): entry
    for entry in (
        SAM.method,
        ASAM.method,
        BiSAM.method,
        ESAM.method,
        GSAM.method,
        WSAM.method,
        LookSAM.method,
        FriendlySAM.method,
        VaSSO.method,
        SAMON.method,
        FisherSAM.method,
        SSAM.method,
        AESAM.method,
        TailSAM.method,
        MomentumSAM.method,
        AsyncSAM.method,
        USAM.method,
        LESAM.method,
        StableSAM.method,
        FunctionalSAM.method,
    )
}
