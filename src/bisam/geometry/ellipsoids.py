"""Balls with a diagonal metric: SAM's, and those that scale with the weights or with the gradient."""

import torch

from .._validation import not_negative
from .._vectors.foreach import fisher_metric, magnitudes, norms, slice_norms
from ..choice import Bucket, Memory, Scale
from ._base import Ellipsoid

__all__ = ["FilterBall", "FisherBall", "L2Ball", "LayerBall", "ScaledBall"]


class L2Ball(Ellipsoid):
    """The Euclidean ball of SAM (Foret et al., arXiv 2010.01412): T = 1.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import L2Ball
        >>> opt = SAM(base, model=model, geometry=L2Ball())  # the default
    """

    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return 1: every weight counts alike."""
        return None


class ScaledBall(Ellipsoid):
    """ASAM's ball (Kwon et al., arXiv 2102.11600): T = abs(w) + eta, so that rescaling a layer changes nothing.

    As in the authors' code T applies to the parameters whose name holds ``weight`` (normalisation layers too) and
    is 1 on the rest. Names come from ``model=`` or from ``base`` built of ``model.named_parameters()``; **where they
    are unknown every parameter is scaled**, the other form in use.

    Example:
        >>> from bisam import BiSAM
        >>> from bisam.geometry import ScaledBall
        >>> opt = BiSAM(base, model=model, rho=0.5, geometry=ScaledBall())  # BiSAM in ASAM's ball

    Args:
        eta: keeps weights at zero movable; >= 0.
    """

    def __init__(self, eta: float = 0.01) -> None:
        self.eta = not_negative("eta", eta)

    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return abs(w) + eta for weights and 1 for the rest."""
        scaled = [name is None or "weight" in name for name in bucket.names]
        weights = [weight for weight, is_scaled in zip(bucket.weights, scaled, strict=True) if is_scaled]
        if not weights:
            return None
        sizes = iter(magnitudes(weights, self.eta))
        return [next(sizes) if is_scaled else None for is_scaled in scaled]


class LayerBall(Ellipsoid):
    """The layer-wise ball (Mueller et al., arXiv 2306.04226, Sec. 3): T = ||w_l||, one number for each tensor.

    A tensor that is zero, such as a fresh bias, does not move where T is its norm. The authors' code leaves biases
    unscaled by default (its ``normalize_bias=False``): there T is 1 on every parameter whose name does not hold
    ``weight``. Sharded tensors are refused.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import LayerBall
        >>> opt = SAM(base, model=model, rho=0.02, geometry=LayerBall())

    Args:
        scale_biases: whether T is the norm on every tensor; False is the authors' default, and needs names: ``model=``,
            or a ``base`` built of ``model.named_parameters()``.

    Raises:
        TypeError: ``scale_biases`` is no bool.
        ValueError: from the step, for sharded tensors, or where a name is needed and unknown.
    """

    def __init__(self, scale_biases: bool = True) -> None:
        if not isinstance(scale_biases, bool):
            raise TypeError(f"scale_biases={scale_biases!r} must be True or False")
        self.scale_biases = scale_biases

    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return the norm of each tensor, or 1 for the biases that are left out."""
        if bucket.shards is not None:
            raise ValueError("LayerBall() needs whole tensors, and these are sharded (FSDP): use ScaledBall()")
        scaled = [self.scale_biases or self._is_weight(name) for name in bucket.names]
        weights = [weight for weight, is_scaled in zip(bucket.weights, scaled, strict=True) if is_scaled]
        if not weights:
            return None
        lengths = iter(torch.stack(norms(weights)).to(weights[0].dtype).unbind())
        return [next(lengths) if is_scaled else None for is_scaled in scaled]

    @staticmethod
    def _is_weight(name: str | None) -> bool:
        if name is None:
            raise ValueError(
                "LayerBall(scale_biases=False) tells weights from biases by their names, and these are unknown: pass "
                "model=, or build base on model.named_parameters()"
            )
        return "weight" in name


class FilterBall(Ellipsoid):
    """The filter-wise ball (Kwon et al., arXiv 2102.11600, Sec. 3): T = ||f|| + eta, one number for each filter.

    A filter is a slice of a weight tensor along its first axis: an output channel of a convolution, a row of a linear
    layer. Parameters with one axis or none have no filters; there T = abs(w) + eta, entry by entry.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import FilterBall
        >>> opt = SAM(base, model=model, rho=0.5, geometry=FilterBall())

    Args:
        eta: keeps filters at zero movable; >= 0.
    """

    def __init__(self, eta: float = 0.01) -> None:
        self.eta = not_negative("eta", eta)

    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return the norm of each filter plus eta, in the shape of the tensor."""
        if bucket.shards is not None and any(
            not p.is_replicate() and not p.is_shard(0) for p in bucket.shards.placements
        ):
            raise ValueError(
                "FilterBall() needs whole filters, and these tensors are sharded along another axis than the first: "
                "use ScaledBall()"
            )
        return slice_norms(bucket.weights, self.eta)


class FisherBall(Ellipsoid):
    """Fisher SAM's ellipsoid (Kim et al., ICML 2022, arXiv 2206.04920): T^2 = 1 / (1 + eta g^2).

    The diagonal Fisher information is estimated by the squared gradient of the mini-batch, as the authors do. Unlike
    the other balls it depends on the scale of the loss, so tell it the scaler: ``passes(grad_scale=scaler)``.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import FisherBall
        >>> opt = SAM(base, model=model, geometry=FisherBall())  # bisam.FisherSAM

    Args:
        eta: >= 0; 0 is the Euclidean ball.
    """

    needs_scale = True

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = not_negative("eta", eta)

    def metric(self, bucket: Bucket, memory: Memory) -> Scale:
        """Return (1 + eta g^2)^(-1/2)."""
        entries, unit = bucket.look()
        return fisher_metric(entries, self.eta, unit)
