"""Geometry: in which ball does the perturbation move?

A ball here is ||eps / T|| <= rho with a diagonal metric T. Its farthest point along g is
eps = rho T^2 g / ||T g||; the optimizer does that sum, a geometry only names T.
"""

from typing import Protocol, runtime_checkable

from ._errors import not_negative
from ._foreach import Bucket, Scale, magnitudes

__all__ = ["Geometry", "L2Ball", "ScaledBall"]


@runtime_checkable
class Geometry(Protocol):
    """Names the metric of a ball."""

    def __call__(self, bucket: Bucket) -> Scale:
        """Return T for the parameters of ``bucket``: a tensor each, or None for 1."""


class L2Ball:
    """The Euclidean ball of SAM (Foret et al., arXiv 2010.01412): T = 1."""

    def __call__(self, bucket: Bucket) -> Scale:
        """Return None: every weight counts alike."""
        return None

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

    def __call__(self, bucket: Bucket) -> Scale:
        """Return abs(w) + eta for weights and None for the rest."""
        chosen = [name is None or "weight" in name for name in bucket.names]
        weights = [param for param, scaled in zip(bucket.params, chosen, strict=True) if scaled]
        if not weights:
            return None
        rest = iter(magnitudes(weights, self.eta))
        return [next(rest) if scaled else None for scaled in chosen]

    def __repr__(self) -> str:
        return f"ScaledBall(eta={self.eta})"
