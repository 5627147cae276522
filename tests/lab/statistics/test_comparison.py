"""Holm's correction against worked examples, and methods paired by seed."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisam_lab.statistics import compare, holm

from .results import run


def test_holm_of_worked_examples():
    """p = .01, .04, .03, .005 by hand; then the documentation of pingouin.holm and of stdlib's padjust."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
    assert holm([0.319, 0.201, 0.4, 0.374, 0.113]) == pytest.approx([0.957, 0.804, 0.957, 0.957, 0.565])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert [math.isnan(p) for p in holm([math.nan, 0.02])] == [True, False]
    assert holm([math.nan, 0.02])[1] == 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_holm_is_monotone(ps, data):
    adjusted = holm(ps)
    assert all(p <= a <= min(1, len(ps) * p) for p, a in zip(ps, adjusted, strict=True))
    assert all(a <= b for (_, a), (_, b) in itertools.pairwise(sorted(zip(ps, adjusted, strict=True))))
    larger = [data.draw(st.floats(p, 1)) for p in ps]
    assert all(a <= b for a, b in zip(adjusted, holm(larger), strict=True))


def test_compare_pairs_by_seed():
    results = [run("sgd", s, 0.80 + 0.05 * s) for s in range(4)]
    results += [run("sam", s, 0.83 + 0.05 * s + 0.001 * (s % 2), speed=50.0) for s in (3, 1, 0)]
    sgd, sam = compare(results, "sgd")
    assert (sgd.n, sam.n, sam.pairs) == (4, 3, 3)
    assert math.isnan(sgd.difference)
    assert sam.difference == pytest.approx(3.0667, abs=1e-3)
    assert sam.low < sam.difference < sam.high
    assert sam.p < 0.001  # unpaired, the spread between seeds would hide it
    assert sam.speed == 0.5
    with pytest.raises(ValueError, match="baseline='adam'"):
        compare(results, "adam")
