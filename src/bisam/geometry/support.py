"""Geometries around another one: over some of the parameters, or over some of the weights."""

import functools
from collections.abc import Sequence

from torch import nn

from .._validation import fraction
from .._vectors.foreach import split
from .._vectors.random import uniform
from ..choice import Bucket, Memory, Scale, Wrapper
from ._base import Geometry
from .ellipsoids import L2Ball

__all__ = ["NORMALISATION", "OnlyModules", "RandomSupport"]

#: Normalisation layers of torch, and whatever derives from them.
NORMALISATION: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # BatchNorm, SyncBatchNorm, InstanceNorm and other packages' kinds: no public base
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


class OnlyModules(Wrapper, Geometry):
    """A set over the parameters of some kinds of modules; all other parameters stay where they are.

    With the normalisation layers it is SAM-ON (Mueller et al., NeurIPS 2023, arXiv 2306.04226). Modules are told by
    their type, so ``model=`` is needed.

    Args:
        types: module classes; None means torch's normalisation layers. Add your own: ``(*NORMALISATION, MyRMSNorm)``.
        inner: the set over what is left; None is the Euclidean ball.
    """

    def __init__(self, types: Sequence[type[nn.Module]] | None = None, inner: Geometry | None = None) -> None:
        super().__init__(L2Ball() if inner is None else inner)
        self.types = NORMALISATION if types is None else tuple(types)
        if not self.types or not all(isinstance(kind, type) for kind in self.types):
            raise TypeError(f"types={types!r} must be module classes, such as (torch.nn.LayerNorm,)")

    def select(self, buckets: Sequence[Bucket]) -> None:
        """Let go of all but the chosen modules' parameters.

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
            bucket.select(functools.partial(self._chosen, bucket))
        super().select([bucket for bucket in buckets if bucket.params])

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Ask the inner set."""
        self.inner([bucket for bucket in buckets if bucket.params], memory)

    def _chosen(self, bucket: Bucket, number: int) -> bool:
        return any(isinstance(owner, self.types) for owner in bucket.owners[number])

    def __repr__(self) -> str:
        return f"OnlyModules(({', '.join(kind.__name__ for kind in self.types)},), inner={self.inner!r})"


class RandomSupport(Wrapper, Geometry):
    """ESAM's random weights (Du et al., ICLR 2022, arXiv 2110.03141): each weight moves with probability ``beta``.

    Those that move, move 1/beta as far, so that eps is right on average. The mask is drawn from (seed, step): resumed
    runs, micro-batches and data-parallel workers share it.

    Args:
        beta: in (0, 1]; 1 is the inner set.
        seed: of the draws.
        inner: the set that eps comes from; None is the Euclidean ball.
    """

    def __init__(self, beta: float = 0.6, seed: int = 0, inner: Geometry | None = None) -> None:
        super().__init__(L2Ball() if inner is None else inner)
        self.beta = fraction("beta", beta)
        self.seed = seed

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Ask the inner set, and multiply its point by the mask over beta."""
        self.inner(buckets, memory)
        for number, bucket in enumerate(buckets):
            bucket.multiply(self._mask(bucket, number, memory))

    def _mask(self, bucket: Bucket, number: int, memory: Memory) -> Scale:
        if self.beta == 1 or not bucket.params:
            return None
        part = 0 if bucket.shards is None else bucket.shards.number
        chosen = uniform(bucket.weights, self.seed, memory.step, number, part) < self.beta
        return split(chosen * bucket.weights[0].new_full((), 1 / self.beta), bucket.weights)
