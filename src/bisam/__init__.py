"""Sharpness-aware training for PyTorch: a gradient estimator around any optimizer.

.. table: methods-in-rst

=============  ==================  ====================================  =================
method         what it climbs      its other choices                     passes a step
=============  ==================  ====================================  =================
SAM            descent objective   none                                  2
ASAM           descent objective   geometry ``ScaledBall``               2
BiSAM          ``LowerBoundLoss``  none                                  2
ESAM           descent objective   geometry ``RandomSupport``            2
GSAM           descent objective   combine ``Surrogate``                 2 (3)
WSAM           descent objective   combine ``Blend``                     2 (3)
LookSAM        descent objective   cadence ``Every``, combine ``Reuse``  1 + 1/k (1 + 2/k)
FriendlySAM    descent objective   direction ``Friendly``                2
VaSSO          descent objective   direction ``Smoothed``                2
SAMON          descent objective   geometry ``OnlyModules``              2
FisherSAM      descent objective   geometry ``FisherBall``               2
SSAM           descent objective   geometry ``SparseSupport``            2
AESAM          descent objective   cadence ``Adaptive``                  1 to 2 (1 to 3)
TailSAM        descent objective   cadence ``Tail``                      1 + tail
MomentumSAM    ``BaseMomentum``    none                                  1
AsyncSAM       ``LastGradient``    none                                  1
USAM           descent objective   radius ``PartlyNormalised``           2
LESAM          descent objective   radius ``LossBudget``                 2
StableSAM      descent objective   combine ``Renormalise``               2 (3)
FunctionalSAM  descent objective   descent ``OutputGradient``            2
=============  ==================  ====================================  =================

.. end

In brackets: with ``third_pass=True``, under an ascent objective that is not the descent's.

Every method takes ``ascent=``, ``descent=``, ``direction=``, ``geometry=``, ``cadence=`` and ``combine=``, so their
combinations (BiSAM + ASAM is ``BiSAM(base, geometry=ScaledBall())``) need no class of their own.

    opt = BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.05)
    for x, y in loader:
        for objective in opt.passes():
            objective(model(x), y).backward()
        opt.step(); opt.zero_grad()
"""

from . import ascent, bounds, cadence, choice, combine, direction, functional, geometry, loops, losses, radius
from ._step.objective import Objective
from ._step.stats import StepStats
from .geometry import L2Ball, ScaledBall
from .losses.bounds import Bound
from .losses.head import ChunkedHeadLoss
from .losses.language import CausalLMLoss
from .losses.modules import BinaryLowerBoundLoss, LowerBoundLoss, ZeroOneLoss
from .method import Method
from .methods import (
    AESAM,
    ASAM,
    ESAM,
    GSAM,
    LESAM,
    METHODS,
    SAM,
    SAMON,
    SSAM,
    USAM,
    WSAM,
    AsyncSAM,
    BiSAM,
    FisherSAM,
    FriendlySAM,
    FunctionalSAM,
    LookSAM,
    MomentumSAM,
    StableSAM,
    TailSAM,
    VaSSO,
)
from .optimizer import SharpnessAware
from .radius_sweep import RadiusResult, RhoRange, rho_range
from .recommendation import Recommendation, recommend
from .schedule import RhoScheduler

__version__ = "0.1.0"

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
    "BinaryLowerBoundLoss",
    "Bound",
    "CausalLMLoss",
    "ChunkedHeadLoss",
    "FisherSAM",
    "FriendlySAM",
    "FunctionalSAM",
    "L2Ball",
    "LookSAM",
    "LowerBoundLoss",
    "Method",
    "MomentumSAM",
    "Objective",
    "RadiusResult",
    "Recommendation",
    "RhoRange",
    "RhoScheduler",
    "ScaledBall",
    "SharpnessAware",
    "StableSAM",
    "StepStats",
    "TailSAM",
    "VaSSO",
    "ZeroOneLoss",
    "ascent",
    "bounds",
    "cadence",
    "choice",
    "combine",
    "direction",
    "functional",
    "geometry",
    "loops",
    "losses",
    "radius",
    "recommend",
    "rho_range",
]
