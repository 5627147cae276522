"""Statistics against published worked examples, and verdicts that say no more than the numbers do."""

import math

import pytest

from bisam_lab.result import RunResult
from bisam_lab.statistics import compare, holm, paired, verdict


def run(method, seed, accuracy, status="ok", speed=100.0):
    return RunResult(method, seed, status, accuracy, accuracy, 1, speed, 1.0)


def test_paired_interval_and_p_of_student_1908():
    """Cushny and Peebles' sleep data, as in Student (1908): mean 1.58, t = 4.0621 on 9 degrees, p = 0.00283."""
    extra_hours = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    low, high, p = paired(extra_hours)
    assert (low, high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert p == pytest.approx(0.00283289, abs=1e-7)


def test_holm_of_a_worked_example():
    """p = .01, .04, .03, .005 adjust to .03, .06, .06, .02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert [math.isnan(p) for p in holm([math.nan, 0.02])] == [True, False]
    assert holm([math.nan, 0.02])[1] == 0.02


def test_no_spread_and_no_pairs_make_no_noise():
    for flat in ([0.5, 0.5], [0.0, 0.0], [0.1 + 0.2, 0.3]):
        assert all(math.isnan(v) for v in paired(flat))
    assert all(math.isnan(v) for v in paired([0.3]))
    assert all(math.isnan(v) for v in paired([]))


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


def test_verdicts():
    base = [run("sgd", s, 0.8 + 0.01 * s) for s in range(5)]
    same = [run("sam", s, 0.8 + 0.01 * s + 0.01 * (-1) ** s) for s in range(5)]
    better = [run("asam", s, 0.9 + 0.01 * s + 0.001 * s) for s in range(5)]
    broken = [run("bisam-log", s, 0.1 + 0.001 * s, "collapsed") for s in range(4)] + [
        run("bisam-log", 4, 0.0, "diverged")
    ]
    sentence = verdict(compare(base + same, "sgd"), "sgd")
    assert sentence.startswith("No evidence of a difference to sgd: sam")
    broken[0] = run("bisam-log", 0, 0.12)
    sentence = verdict(compare(base + same + better + broken, "sgd"), "sgd")
    assert "Better than sgd: asam (+10.20 [" in sentence
    assert "worse than sgd: bisam-log (-7" in sentence
    assert "no evidence of a difference to sgd: sam" in sentence
    assert "3 of bisam-log (collapsed) and 1 of bisam-log (diverged)" in sentence
    assert "5 seeds" in sentence
    assert verdict(compare([base[0], same[0]], "sgd"), "sgd").endswith("say anything: sam.")
    assert "Too few pairs to say anything: sam" in verdict(compare([base[0], same[0]], "sgd"), "sgd")
    assert "nothing to compare" in verdict(compare(base, "sgd"), "sgd")


def test_verdicts_claim_nothing_of_failed_runs_nor_of_rounding():
    base = [run("sgd", s, 1 - (50 + 2 * s) / 597) for s in range(2)]
    one_image_better = [run("sam", s, 1 - (49 + 2 * s) / 597) for s in range(2)]
    assert "same difference to sgd at every seed" in verdict(compare(base + one_image_better, "sgd"), "sgd").lower()
    collapsed = [run("sam", s, 0.1, "collapsed") for s in range(2)]
    diverged = [run("sgd", s, 0.0, "diverged") for s in range(2)]
    assert "nothing is claimed of sam" in verdict(compare(base + collapsed, "sgd"), "sgd")
    assert verdict(compare(diverged + collapsed, "sgd"), "sgd").startswith("Nothing can be compared: every run of sgd")
