r"""The battery: what every sharpness-aware optimizer must do, ours or yours.

:data:`CONTRACT` is what must be true of every method, :data:`SPEED` what a fast one does besides, :data:`BATTERY` both.
Each check takes ``make(model) -> SharpnessAware`` and raises ``AssertionError`` with the reason::

    @pytest.mark.parametrize("check", bisam.testing.BATTERY, ids=lambda check: check.__name__)
    def test_my_method(check):
        check(lambda model: MyMethod(torch.optim.SGD(model.parameters(), lr=0.1), model=model))

The model that a check hands to ``make`` is small, float64 and on the CPU, with BatchNorm, a shared and a frozen
parameter and one that no loss ever reaches.
"""

from .battery import BATTERY, CONTRACT, SPEED, Make
from .bound import check_bound
from .models import Net, batches, bits, count_around_passes, count_operations, run_steps

__all__ = [
    "BATTERY",
    "CONTRACT",
    "SPEED",
    "Make",
    "Net",
    "batches",
    "bits",
    "check_bound",
    "count_around_passes",
    "count_operations",
    "run_steps",
]
