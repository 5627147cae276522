"""Which base optimizers are refused."""

import pytest
import torch

from bisam import SAM, BiSAM
from bisam.testing import Net
from tests.steps import sgd


def test_adadelta_has_a_rho_of_its_own():
    with pytest.raises(ValueError, match="Adadelta has a rho of its own"):
        SAM(torch.optim.Adadelta(Net().parameters()))


def test_a_base_is_wrapped_once():
    model = Net()
    base = sgd(model)
    SAM(base)
    with pytest.raises(ValueError, match="wrapped by a sharpness-aware optimizer already"):
        BiSAM(base)
