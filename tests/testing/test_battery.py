"""Every method, and combinations that no class is named after, through the battery."""

import pytest
import torch

from bisam import ASAM, ESAM, SAM, WSAM, BiSAM, ScaledBall
from bisam.cadence import Every
from bisam.combine import Blend
from bisam.testing import BATTERY
from tests.makers import MAKERS


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


MAKERS = {
    **{name: lambda model, m=method: m(sgd(model), model=model) for name, method in MAKERS.items()},
    "bisam-tanh": lambda model: BiSAM(sgd(model), model=model, bound="tanh"),
    "bisam+asam": lambda model: BiSAM(sgd(model), model=model, geometry=ScaledBall()),
    "sam-adamw": lambda model: SAM(adamw(model), model=model),
    "asam-named": lambda model: ASAM(torch.optim.SGD(model.named_parameters(), lr=0.1), model=model),
    "esam-tensor": lambda model: ESAM(sgd(model), model=model, unit="tensor", inner=ScaledBall()),
    "wsam-decoupled": lambda model: WSAM(sgd(model), model=model, decoupled=True),
    "wsam-decoupled-adamw": lambda model: WSAM(adamw(model), model=model, decoupled=True),
    "sam-every-3": lambda model: SAM(sgd(model), model=model, cadence=Every(3)),
    "sam+blend": lambda model: SAM(sgd(model), model=model, combine=Blend(0.7)),
    "sam-groups": lambda model: SAM(
        torch.optim.SGD(
            [
                {"params": [p for p in model.parameters() if p.ndim > 1], "rho": 0.1},
                {"params": [p for p in model.parameters() if p.ndim < 2], "rho": 0.0},
            ],
            lr=0.1,
        ),
        model=model,
    ),
}


@pytest.mark.matrix("battery")
@pytest.mark.parametrize("check", BATTERY, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_battery(make, check):
    check(make)
