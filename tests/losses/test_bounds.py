"""The bounds of the 0-1 step: below it everywhere."""

from bisam.bounds import as_bound
from bisam.testing import check_bound
from tests.losses.problems import every_bound


@every_bound
def test_every_bound_lies_below_the_step(bound):
    check_bound(as_bound(bound))
