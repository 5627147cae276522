"""check_bound: what it refuses."""

import pytest
import torch

from bisam import Bound
from bisam.bounds import TanhBound
from bisam.testing import check_bound


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (lambda x: torch.sigmoid(x), "above the 0-1 step"),
        (lambda x: torch.tanh(x) - (x > 1).to(x.dtype), "falls"),
        (lambda x: x / (1 + x.abs()), "NaN at"),
        (lambda x: torch.tanh(x).float(), "changes torch.float64"),
    ],
)
def test_check_bound_refuses(phi, message):
    wrong = type("Wrong", (Bound,), {"phi": lambda self, x: phi(x)})()
    with pytest.raises(AssertionError, match=message):
        check_bound(wrong)


def test_check_bound_refuses_a_wrong_slope():
    class Wrong(TanhBound):
        def slope(self, x):
            return 2 * super().slope(x)

    with pytest.raises(AssertionError, match="is not the derivative"):
        check_bound(Wrong())
