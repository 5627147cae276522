"""Geometries around another one: over some of the parameters, or over some of the weights."""

from collections.abc import Iterable, Sequence

from torch import nn

from .._validation import fraction
from .._vectors.foreach import split
from .._vectors.random import chosen, uniform_row
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

    Example:
        >>> from bisam import SAM, ScaledBall
        >>> from bisam.geometry import OnlyModules
        >>> opt = SAM(base, model=model, geometry=OnlyModules([nn.Linear], inner=ScaledBall()))

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
        """Let go of all but the chosen modules' parameters: of all, where the chosen ones are in groups of radius 0.

        Raises:
            ValueError: none of the trainable parameters belongs to such a module.
        """
        owners = [owners for bucket in buckets for owners in bucket.owners]
        if buckets and not any(map(self._chosen, (*owners, *buckets[0].still))):
            names = ", ".join(kind.__name__.lstrip("_") for kind in self.types)
            raise ValueError(
                f"no trainable parameter with a gradient belongs to a module of type {names}: pass model=, and name "
                "the types of your own layers, geometry=OnlyModules((*NORMALISATION, MyNorm))"
            )
        for bucket in buckets:
            bucket.select([self._chosen(owners) for owners in bucket.owners].__getitem__)
        super().select([bucket for bucket in buckets if bucket.params])

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Ask the inner set."""
        self.inner([bucket for bucket in buckets if bucket.params], memory)

    def _chosen(self, owners: Iterable[nn.Module]) -> bool:
        return any(isinstance(owner, self.types) for owner in owners)

    def __repr__(self) -> str:
        return f"OnlyModules(({', '.join(kind.__name__ for kind in self.types)},), inner={self.inner!r})"


class RandomSupport(Wrapper, Geometry):
    """ESAM's random support (Du et al., ICLR 2022, arXiv 2110.03141): each unit moves with probability ``beta``.

    Those that move, move 1/beta as far. The draws depend on (seed, step): resumed runs, micro-batches and data-parallel
    workers share them. There are two units:

    - ``"weight"``: each weight is drawn by itself, after the inner set has settled the length of eps. So eps is the
      inner set's on average, and in the Euclidean ball the root mean square of its norm is rho / sqrt(beta): 0.065 for
      rho 0.05 and beta 0.6.
    - ``"tensor"``: each parameter tensor is drawn as a whole, before the inner set. So the norm is taken over the
      tensors that move, and in the Euclidean ball the norm of eps is rho / beta: 0.083. The authors' code freezes whole
      tensors, with this norm. A step that draws none does not perturb. The inner set sees gradients of zero where
      nothing moves; around a :class:`SparseSupport` write ``SparseSupport(inner=RandomSupport(...))``, or its mask
      drops the weights of those tensors.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import RandomSupport
        >>> opt = SAM(base, model=model, geometry=RandomSupport(beta=0.6))  # half of bisam.ESAM

    Args:
        beta: in (0, 1]; 1 is the inner set.
        seed: of the draws.
        inner: the set that eps comes from; None is the Euclidean ball.
        unit: ``"weight"`` or ``"tensor"``.

    Raises:
        ValueError: ``beta`` out of its range; an unknown ``unit``.
    """

    def __init__(
        self, beta: float = 0.6, seed: int = 0, inner: Geometry | None = None, *, unit: str = "weight"
    ) -> None:
        super().__init__(L2Ball() if inner is None else inner)
        self.beta = fraction("beta", beta)
        self.seed = seed
        if unit not in ("weight", "tensor"):
            raise ValueError(
                f"unit={unit!r} is unknown: choose 'weight' (each weight is drawn by itself) or 'tensor' (whole "
                "tensors, as in the ESAM authors' code)"
            )
        self.unit = unit

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Ask the inner set, before or after the draw."""
        if self.unit == "weight" or self.beta == 1:
            for bucket in buckets:
                bucket.due = bucket.due * (1 / self.beta)  # the inner set does it on the way
            self.inner(buckets, memory)
            for number, bucket in enumerate(buckets):
                bucket.multiply(self._mask(bucket, number, memory))
            return
        for number, bucket in enumerate(buckets):
            bucket.multiply(self._live(bucket, number, memory))
            bucket.due = bucket.due * (1 / self.beta)
        self.inner(buckets, memory)

    def _live(self, bucket: Bucket, number: int, memory: Memory) -> Scale:
        """Return 1 for each tensor that moves and 0 for the others; all shards of a tensor share its draw."""
        if not bucket.params:
            return None
        draws = uniform_row(len(bucket.params), bucket.weights[0].device, self.seed, memory.step, number)
        return (draws < self.beta).to(bucket.weights[0].dtype).unbind()

    def _mask(self, bucket: Bucket, number: int, memory: Memory) -> Scale:
        """Return 1 for each weight that moves and 0 for the others."""
        if self.beta == 1 or not bucket.params:
            return None
        part = 0 if bucket.shards is None else bucket.shards.number
        return split(chosen(bucket.weights, self.beta, self.seed, memory.step, number, part), bucket.weights)
