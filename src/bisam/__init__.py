"""Sharpness-aware training for PyTorch: a gradient estimator around any optimizer.

===========  ==================  ====================================  =================
method       what it climbs      its other choices                     passes a step
===========  ==================  ====================================  =================
SAM          descent objective   none                                  2
ASAM         as SAM              geometry ``ScaledBall``               2
BiSAM        ``LowerBoundLoss``  none                                  2
ESAM         as SAM              geometry ``RandomSupport``            2
GSAM         as SAM              combine ``Surrogate``                 2 (3)
WSAM         as SAM              combine ``Blend``                     2 (3)
LookSAM      as SAM              cadence ``Every``, combine ``Reuse``  1 + 1/k (1 + 2/k)
FriendlySAM  as SAM              direction ``Friendly``                2
VaSSO        as SAM              direction ``Smoothed``                2
SAMON        as SAM              geometry ``OnlyModules``              2
FisherSAM    as SAM              geometry ``FisherBall``               2
SSAM         as SAM              geometry ``SparseSupport``            2
AESAM        as SAM              cadence ``Adaptive``                  1 to 2 (1 to 3)
===========  ==================  ====================================  =================

In brackets: with ``third_pass=True``, under an ascent objective that is not the descent's.

Every method takes ``ascent=``, ``descent=``, ``direction=``, ``geometry=``, ``cadence=`` and ``combine=``, so their
combinations (BiSAM + ASAM is ``BiSAM(base, geometry=ScaledBall())``) need no class of their own.

    opt = BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.05)
    for x, y in loader:
        for loss in opt.passes():
            loss(model(x), y).backward()
        opt.step(); opt.zero_grad()
"""

from . import bounds, cadence, combine, direction, functional, geometry, loops, sparse
from .bounds import Bound
from .geometry import L2Ball, ScaledBall
from .language import CausalLMLoss
from .methods import (
    AESAM,
    ASAM,
    ESAM,
    GSAM,
    METHODS,
    SAM,
    SAMON,
    SSAM,
    WSAM,
    BiSAM,
    FisherSAM,
    FriendlySAM,
    LookSAM,
    VaSSO,
)
from .objectives import LowerBoundLoss, ZeroOneLoss
from .optimizer import SharpnessAware
from .rho_range import RhoRange, rho_range
from .schedule import RhoScheduler

__version__ = "0.1.0"

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
    "Bound",
    "CausalLMLoss",
    "FisherSAM",
    "FriendlySAM",
    "L2Ball",
    "LookSAM",
    "LowerBoundLoss",
    "RhoRange",
    "RhoScheduler",
    "ScaledBall",
    "SharpnessAware",
    "VaSSO",
    "ZeroOneLoss",
    "bounds",
    "cadence",
    "combine",
    "direction",
    "functional",
    "geometry",
    "loops",
    "rho_range",
    "sparse",
]
