"""Geometry: in which ball does the perturbation move, and over which weights?

A ball here is ||eps / T|| <= rho with a diagonal metric T. Its farthest point along g is
eps = rho T^2 g / ||T g||; the optimizer does that sum over all parameters, a geometry only names T. It may also name a
support, a mask say, that multiplies eps afterwards, and it may let go of parameters that shall not move at all.
"""

import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from ._climb import Ball, Bucket
from ._errors import not_negative, share
from ._foreach import Scale, fisher_metric, magnitudes, norms, product, split
from ._random import uniform
from .memory import Memory

__all__ = ["Ball", "FisherBall", "Geometry", "L2Ball", "LayerBall", "OnlyModules", "RandomSupport", "ScaledBall"]

#: Normalisation layers of torch, and whatever derives from them.
NORMALISATION: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # BatchNorm, SyncBatchNorm, InstanceNorm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


@runtime_checkable
class Geometry(Protocol):
    """Names the balls. One with a memory, see :class:`~bisam.memory.Memory`, names its vectors in ``memory``."""

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return a ball for each bucket; ``bucket.keep`` may make a bucket smaller, down to nothing."""


class L2Ball:
    """The Euclidean ball of SAM (Foret et al., arXiv 2010.01412): T = 1."""

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return balls where every weight counts alike."""
        return [Ball() for _ in buckets]

    def __repr__(self) -> str:
        return "L2Ball()"


class ScaledBall:
    """ASAM's ball (Kwon et al., arXiv 2102.11600): T = abs(w) + eta, so that rescaling a layer changes nothing.

    As in the authors' code T applies to the parameters whose name holds ``weight`` (normalisation layers too) and
    is 1 on the rest. Names come from ``model=`` or from ``base`` built of ``model.named_parameters()``; **where they
    are unknown every parameter is scaled**, the other form in use.

    Args:
        eta: keeps weights at zero movable; >= 0.
    """

    def __init__(self, eta: float = 0.01) -> None:
        self.eta = not_negative("eta", eta)

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return abs(w) + eta for weights and 1 for the rest."""
        return [Ball(self._metric(bucket)) for bucket in buckets]

    def _metric(self, bucket: Bucket) -> Scale:
        chosen = [name is None or "weight" in name for name in bucket.names]
        weights = [weight for weight, is_scaled in zip(bucket.weights, chosen, strict=True) if is_scaled]
        if not weights:
            return None
        rest = iter(magnitudes(weights, self.eta))
        return [next(rest) if is_scaled else None for is_scaled in chosen]

    def __repr__(self) -> str:
        return f"ScaledBall(eta={self.eta})"


class LayerBall:
    """The layer-wise ball (Mueller et al., arXiv 2306.04226, Sec. 3): T = ||w_l||, one number for each tensor.

    A tensor that is zero, a fresh bias say, does not move. Sharded tensors are refused.
    """

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return the norm of each tensor."""
        if any(bucket.shards is not None for bucket in buckets):
            raise ValueError("LayerBall() needs whole tensors, and these are sharded (FSDP): use ScaledBall()")
        return [Ball(torch.stack(norms(b.weights)).to(b.weights[0].dtype).unbind()) for b in buckets]

    def __repr__(self) -> str:
        return "LayerBall()"


class FisherBall:
    """Fisher SAM's ellipsoid (Kim et al., ICML 2022, arXiv 2206.04920): T^2 = 1 / (1 + eta g^2).

    The diagonal Fisher information is estimated by the squared gradient of the mini-batch, as the authors do. Unlike
    the other balls it depends on the scale of the loss, so tell it the scaler: ``passes(grad_scale=scaler)``.

    Args:
        eta: >= 0; 0 is the Euclidean ball.
    """

    needs_scale = True

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = not_negative("eta", eta)

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return (1 + eta g^2)^(-1/2)."""
        return [Ball(fisher_metric(bucket.grads, self.eta)) for bucket in buckets]

    def __repr__(self) -> str:
        return f"FisherBall(eta={self.eta})"


class OnlyModules:
    """A ball over the parameters of some kinds of modules; all others stay where they are.

    With the normalisation layers it is SAM-ON (Mueller et al., NeurIPS 2023, arXiv 2306.04226). Modules are told by
    their type, so ``model=`` is needed.

    Args:
        types: module classes; None means torch's normalisation layers. Add your own: ``(*NORMALISATION, MyRMSNorm)``.
        inner: the ball over what is left.
    """

    def __init__(self, types: Sequence[type[nn.Module]] | None = None, inner: Geometry | None = None) -> None:
        self.types = NORMALISATION if types is None else tuple(types)
        if not self.types or not all(isinstance(kind, type) for kind in self.types):
            raise TypeError(f"types={types!r} must be module classes, such as (torch.nn.LayerNorm,)")
        self.inner = inner or L2Ball()
        self.memory: tuple[str, ...] = getattr(self.inner, "memory", ())
        self.needs_scale = getattr(self.inner, "needs_scale", False)

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return the inner ball over the chosen modules' parameters.

        Raises:
            ValueError: none of the parameters belongs to such a module.
        """
        if not any(self._chosen(bucket, number) for bucket in buckets for number in range(len(bucket.params))):
            names = ", ".join(kind.__name__.lstrip("_") for kind in self.types)
            raise ValueError(
                f"no trainable parameter with a gradient belongs to a module of type {names}: pass model=, and name "
                "the types of your own layers, geometry=OnlyModules((*NORMALISATION, MyNorm))"
            )
        for bucket in buckets:
            bucket.keep(functools.partial(self._chosen, bucket))
        left = iter(self.inner([bucket for bucket in buckets if bucket.params], memory))
        return [next(left) if bucket.params else Ball() for bucket in buckets]

    def _chosen(self, bucket: Bucket, number: int) -> bool:
        return any(isinstance(owner, self.types) for owner in bucket.owners[number])

    def __repr__(self) -> str:
        return f"OnlyModules(({', '.join(kind.__name__ for kind in self.types)},), inner={self.inner!r})"


class RandomSupport:
    """ESAM's random weights (Du et al., ICLR 2022, arXiv 2110.03141): each weight moves with probability ``beta``.

    Those that move, move 1/beta as far, so that eps is right on average. The mask is drawn from (seed, step): resumed
    runs, micro-batches and data-parallel workers share it.

    Args:
        beta: in (0, 1]; 1 is the inner ball.
        seed: of the draws.
        inner: the ball that eps comes from.
    """

    def __init__(self, beta: float = 0.6, seed: int = 0, inner: Geometry | None = None) -> None:
        self.beta = share("beta", beta)
        self.seed = seed
        self.inner = inner or L2Ball()
        self.memory: tuple[str, ...] = getattr(self.inner, "memory", ())
        self.needs_scale = getattr(self.inner, "needs_scale", False)

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> Sequence[Ball]:
        """Return the inner balls with the mask over beta as support."""
        balls = self.inner(buckets, memory)
        masks = [self._mask(bucket, number, memory) for number, bucket in enumerate(buckets)]
        return [Ball(ball.metric, product(ball.support, mask)) for ball, mask in zip(balls, masks, strict=True)]

    def _mask(self, bucket: Bucket, number: int, memory: Memory) -> Scale:
        if self.beta == 1 or not bucket.params:
            return None
        part = 0 if bucket.shards is None else bucket.shards.number
        chosen = uniform(bucket.weights, self.seed, memory.step, number, part) < self.beta
        return split(chosen * bucket.weights[0].new_full((), 1 / self.beta), bucket.weights)

    def __repr__(self) -> str:
        return f"RandomSupport(beta={self.beta}, seed={self.seed}, inner={self.inner!r})"
