"""Seeds that a difference needs, against published examples and simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisam_lab.statistics import detectable, seeds_needed
from bisam_lab.statistics.power import _power


def test_power_of_dalgaard_2008():
    """Introductory Statistics with R, section 8.3.

    power.t.test(delta=10, sd=10*sqrt(2), power=0.85, type="paired") prints n = 19.96892.
    """
    assert seeds_needed(10 * math.sqrt(2), 10, power=0.85) == 20
    between = [_power(n, 10 / (10 * math.sqrt(2)), 0.05) for n in (19, 20)]
    n = 19 + (0.85 - between[0]) / (between[1] - between[0])
    assert n == pytest.approx(19.96892, abs=0.005)  # between whole numbers R goes along the curve, this along its chord


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 3), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.05, 0.01]))
def test_seeds_and_difference_are_inverse(sd, effect, power, level):
    n = seeds_needed(sd, effect * sd, power, level)
    assert detectable(sd, n, power, level) <= effect * sd * (1 + 1e-9)
    if n > 2:
        assert detectable(sd, n - 1, power, level) > effect * sd * (1 - 1e-9)


def test_power_is_what_simulated_studies_reject():
    difference, rng = detectable(2.0, 6), np.random.default_rng(3)
    d = rng.normal(difference, 2.0, (4000, 6))
    t = d.mean(1) / (d.std(1, ddof=1) / math.sqrt(6))
    assert np.mean(np.abs(t) > 2.570582) == pytest.approx(0.8, abs=0.02)  # the t table's 97.5 % point on 5 degrees


def test_power_refuses_what_is_no_question():
    for wrong in ({"sd": 0.0}, {"difference": -1.0}, {"power": 1.0}, {"power": 0.01}, {"level": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            seeds_needed(**{"sd": 1.0, "difference": 1.0, **wrong})
    with pytest.raises(ValueError, match="n=1"):
        detectable(1.0, 1)
