"""What a geometry is, and the ellipsoids, which most of them are."""

from abc import abstractmethod
from collections.abc import Sequence

from ..choice import Bucket, Choice, Memory, Scale, Vector, Wrapper

__all__ = ["Ellipsoid", "Geometry"]


class Geometry(Choice):
    """A feasible set of radius 1 around zero.

    Example:
        >>> class Signs(Geometry):
        ...     def __call__(self, buckets, memory):
        ...         for bucket in buckets:
        ...             for tensor in bucket.tensors:
        ...                 tensor.sign_()
        >>> opt = bisam.SAM(base, model=model, rho=0.001, geometry=Signs())
    """

    def select(self, buckets: Sequence[Bucket]) -> None:
        """Let go of the parameters that this set never moves, with ``bucket.select``; by default of none.

        It is asked before norms are taken, so that only what moves counts. A wrapper asks the inner set.
        """
        if isinstance(self, Wrapper):
            self.inner.select(buckets)

    @abstractmethod
    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Replace the gradient in each bucket's ``tensors``, in place, by the set's farthest point along it.

        The farthest point does not depend on the gradient's length. So the gradients come in a common unit, in which
        their largest entry has magnitude 1, or their norm where that is what was asked for first (``bucket.unit``
        undoes that), each group's multiplied by its relative radius. ``Vector(buckets).norm()`` takes a norm over all
        of them, shards on other processes included, and ``bucket.normalise(length)`` divides by one. Where there is no
        farthest point, for a zero gradient, leave zeros or NaN: then nothing moves.

        Args:
            buckets: the parameters that can move.
            memory: what this choice has declared in ``memory`` and ``numbers``.
        """


class Ellipsoid(Geometry):
    """The set ||e / T|| <= 1 with a diagonal metric T, whose farthest point along g is T^2 g / ||T g||.

    A subclass names T.

    Example:
        >>> class Tenfold(Ellipsoid):
        ...     def metric(self, bucket, memory):
        ...         return [torch.full_like(tensor, 10.0) for tensor in bucket.tensors]
        >>> opt = bisam.SAM(base, model=model, geometry=Tenfold())
    """

    @abstractmethod
    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return T for each of the bucket's tensors: 0-dim or of its shape, None for 1."""

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Replace each gradient g by T^2 g / ||T g||."""
        metrics = [self.metric(bucket, memory) for bucket in buckets]
        for bucket, metric in zip(buckets, metrics, strict=True):
            bucket.multiply(metric)
        length = Vector(buckets).norm()
        for bucket, metric in zip(buckets, metrics, strict=True):
            bucket.normalise(length)
            bucket.multiply(metric)
