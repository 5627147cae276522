"""Equivalence: two one-sided tests against statsmodels' numbers and simulated studies; and where it is told."""

import math

import numpy as np
import pytest

from bisam_lab.report.summary import markdown
from bisam_lab.statistics import compare, tost, verdict
from bisam_lab.statistics.findings import findings

from .results import run, study

#: statsmodels 0.15.0: ttost_paired(D, zeros, -m, m) and DescrStatsW(D).tconfint_mean(0.10).
D = (0.12, -0.31, 0.25, 0.07, -0.11, 0.18, 0.02, -0.22, 0.09, 0.15)
NEAR, FAR = [d / 4 for d in D], [d + 3 for d in D]


def test_two_one_sided_tests_are_those_of_statsmodels():
    shown, open_ = tost(D, 0.3), tost(D, 0.1)
    assert shown.p == pytest.approx(0.0004785714277561524, rel=1e-9)
    assert open_.p == pytest.approx(0.10889062777316391, rel=1e-9)
    assert (shown.low, shown.high) == pytest.approx((-0.08113399424791909, 0.12913399424791908), rel=1e-9)
    assert shown.verdict == "equivalent within 0.3 points"
    assert open_.verdict == "not shown to be equivalent within 0.1 points"


def test_by_hand():
    """d = 0, 1, 2: mean 1, s = 1, so t = (2 - 1) / (1 / sqrt(3)) = 1.732 on 2 degrees; P(t > 1.732) = 0.1127."""
    found = tost([0.0, 1.0, 2.0], 2.0)
    assert found.p == pytest.approx(
        0.5 - math.sqrt(3) / (2 * math.sqrt(2 + 3)), rel=1e-9
    )  # t on 2 degrees, closed form
    assert (found.low, found.high) == pytest.approx(
        (1 - 2.919986 / math.sqrt(3), 1 + 2.919986 / math.sqrt(3)), rel=1e-6
    )


def test_equal_means_the_interval_lies_within_the_margin():
    rng = np.random.default_rng(5)
    for _ in range(200):
        found = tost(rng.normal(rng.uniform(-0.3, 0.3), 0.4, 8), 0.3)
        assert found.shown == (found.low > -0.3 and found.high < 0.3)


def test_a_difference_of_the_margin_is_called_equal_in_one_study_of_twenty():
    rng = np.random.default_rng(6)
    wrong = np.mean([tost(d, 0.3).shown for d in rng.normal(0.3, 0.2, (800, 10))])
    assert wrong == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("d", [(), (0.1,), (0.1, 0.1), (0.1, math.nan)], ids=str)
def test_nothing_is_shown_where_no_test_is_possible(d):
    found = tost(d, 0.3)
    assert math.isnan(found.p)
    assert not found.shown


@pytest.mark.parametrize(("margin", "level"), [(0.0, 0.05), (-1.0, 0.05), (math.inf, 0.05), (0.3, 0.5)])
def test_a_margin_must_be_one(margin, level):
    with pytest.raises(ValueError, match=r"such as 0\.3" if level == 0.05 else r"level=0\.5"):
        tost(D, margin, level)


def test_a_comparison_says_different_equivalent_both_or_undecided():
    tiny = [0.2 + d / 10 for d in D]
    rows = {
        row.method: row
        for row in compare(study(near=NEAR, far=FAR, wide=[9 * d for d in D], tiny=tiny), "sgd", margin=0.3)
    }
    assert {name: row.conclusion for name, row in rows.items()} == {
        "sgd": "",
        "near": "equivalent within 0.3 points",
        "far": "different",
        "wide": "undecided",
        "tiny": "different, by less than 0.3 points",
    }
    assert rows["sgd"].equivalence is None
    alone = {name: tost(rows[name].differences, 0.3).p for name in ("near", "far", "wide", "tiny")}
    least, second = sorted(alone, key=alone.get)[:2]
    assert rows[least].equivalence.p_adjusted == pytest.approx(4 * alone[least])  # Holm's correction over four methods
    assert rows[second].equivalence.p_adjusted == pytest.approx(max(4 * alone[least], 3 * alone[second]))


def test_table_sentence_and_page_have_it():
    rows = compare(study(near=NEAR, far=FAR), "sgd", margin=0.3)
    assert "| p (within 0.3) | conclusion |" in markdown(rows, "sgd")
    assert "| equivalent within 0.3 points |" in markdown(rows, "sgd")
    equal = "Equivalent to sgd within 0.3 points: near (two one-sided paired t-tests at the 5 % level, Holm-adjusted)."
    assert equal in verdict(rows, "sgd")
    found = findings(rows, "sgd")
    assert equal in found.remarks
    assert {one.method: one.conclusion for one in found.methods} == {
        "near": "equivalent within 0.3 points",
        "far": "different",
    }
    none = verdict(compare(study(far=FAR), "sgd", margin=0.3), "sgd")
    assert "No method is shown to be equivalent to sgd within 0.3 points (two" in none


def test_without_a_margin_nothing_is_said_of_it():
    rows = compare(study(near=NEAR), "sgd")
    assert "within" not in markdown(rows, "sgd") + verdict(rows, "sgd")


def test_two_methods_that_both_fail_are_not_called_equal():
    runs = [run(m, s, 0.1 + 1e-4 * s * (m == "sam"), "collapsed") for m in ("sgd", "sam") for s in range(5)]
    (row,) = [row for row in compare(runs, "sgd", margin=0.3) if row.method == "sam"]
    assert (row.equivalence, row.conclusion) == (None, "")


def test_nothing_equals_a_baseline_of_which_every_run_failed():
    runs = [run("sgd", s, 0.1, "collapsed") for s in range(5)]
    runs += [run("sam", s, 0.1 + 1e-4 * s, "collapsed" if s else "ok") for s in range(5)]
    row = compare(runs, "sgd", margin=0.3)[1]
    assert (row.equivalence, row.conclusion) == (None, "")


def test_a_margin_of_one_is_a_point():
    (_, row) = compare(study(near=NEAR), "sgd", margin=1)
    assert row.conclusion == "equivalent within 1 point"
