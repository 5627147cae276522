"""Geometry: in which set does the perturbation lie, and over which weights?

SAM's adversary looks for the worst point of a feasible set around w. To first order that is the set's farthest point
along the gradient g, eps = argmax <g, eps> (Foret et al., arXiv 2010.01412, Eq. 2). A geometry is that set at radius 1.
The optimizer multiplies the farthest point by the radius.
"""

from ._base import Ellipsoid, Geometry
from .ellipsoids import FilterBall, FisherBall, L2Ball, LayerBall, ScaledBall
from .norms import PNormBall, SpectralBall
from .sparse import SparseSupport
from .support import NORMALISATION, OnlyModules, RandomSupport

__all__ = [
    "NORMALISATION",
    "Ellipsoid",
    "FilterBall",
    "FisherBall",
    "Geometry",
    "L2Ball",
    "LayerBall",
    "OnlyModules",
    "PNormBall",
    "RandomSupport",
    "ScaledBall",
    "SparseSupport",
    "SpectralBall",
]
