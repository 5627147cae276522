r"""The battery: what every sharpness-aware optimizer must do, ours or yours.

:data:`CONTRACT` is what must be true of every method, :data:`SPEED` what a fast one does besides, :data:`BATTERY` both.
Each check takes ``make(model) -> SharpnessAware`` and raises ``AssertionError`` with the reason::

    @pytest.mark.parametrize("check", bisam.testing.BATTERY, ids=lambda check: check.__name__)
    def test_my_method(check):
        check(lambda model: MyMethod(torch.optim.SGD(model.parameters(), lr=0.1), model=model))

The model that a check hands to ``make`` is small, on the CPU and in float64 (``check_gradient_range``: float32 too),
with BatchNorm, a shared and a frozen parameter and one that no loss ever reaches. Build the base optimizer on all of
its parameters, in one group or in several: ``check_group_radii`` splits each group in two with ``add_param_group()``.
"""

from .battery import BATTERY, CONTRACT, SPEED
from .bound import check_bound
from .communication import Sent, count_communication
from .models import Make, Net, batches, bits, count_around_passes, count_operations, run_steps

__all__ = [
    "BATTERY",
    "CONTRACT",
    "SPEED",
    "Make",
    "Net",
    "Sent",
    "batches",
    "bits",
    "check_bound",
    "count_around_passes",
    "count_communication",
    "count_operations",
    "run_steps",
]
