"""Verdicts say no more than the numbers do."""

import math

import numpy as np
import pytest

from bisam_lab.statistics import compare, detectable, seeds_needed, verdict

from .results import run, study


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


def test_verdict_tells_what_the_seeds_could_have_shown():
    d = np.array([1.0, -1.0, 0.5, -0.5, 0.2])
    rows = compare(study(sam=d / d.std(ddof=1)), "sgd")
    size = detectable(rows[1].spread, 5)
    assert rows[1].spread == pytest.approx(1)
    sentence = verdict(rows, "sgd", difference=0.5)
    assert sentence.endswith(
        f"If the spread is what it is here, 5 seeds show a difference of {size:.1f} points in 80 % of studies; "
        f"0.5 points need {seeds_needed(1.0, 0.5)} seeds."
    )
    assert "half of that needs" in verdict(rows, "sgd")
    with pytest.raises(ValueError, match="difference=0"):
        verdict(rows, "sgd", difference=0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_below_five_seeds_nothing_is_said_of_power(n):
    rows = compare(study(sam=[1.0, -1.0, 0.5, -0.6, 0.2][:n]), "sgd")
    assert verdict(rows, "sgd").endswith(f"(paired t-tests over {n} seeds at the 5 % level, Holm-adjusted).")
    assert verdict(rows, "sgd", 0.5).endswith("How many seeds 0.5 points need is not said below 5 seeds.")


def test_verdict_speaks_of_the_worst_and_counts_the_methods():
    d = np.array([1.0, -1.0, 0.5, -0.5, 0.2])
    rows = compare(study(sam=d, asam=3 * d), "sgd")
    sentence = verdict(rows, "sgd", difference=1)
    assert f"a difference of {detectable(rows[2].spread, 5, level=0.025):.1f} points in at least 80 %" in sentence
    assert f"1 points need {seeds_needed(rows[2].spread, 1, level=0.025)} seeds" in sentence


def test_verdict_names_the_test_and_what_it_cannot_do():
    clear = [1.0, 1.3, 1.7, 0.9, 1.1, 2.0]
    rows = compare(study(sam=clear), "sgd", "wilcoxon")
    assert verdict(rows, "sgd").endswith("(Wilcoxon signed-rank tests over 6 seeds at the 5 % level, Holm-adjusted).")
    assert verdict(rows, "sgd").startswith("Better than sgd: sam (+1.")
    five = verdict(compare(study(sam=clear[:5]), "sgd", "bootstrap"), "sgd")
    assert five.startswith(
        "Sign-flip tests with bootstrap intervals cannot reach the 5 % level with 5 seeds, 6 are the"
    )
    assert "no evidence" not in five
    two = verdict(compare(study(sam=clear, asam=clear[::-1]), "sgd", "wilcoxon"), "sgd")
    assert "tests cannot reach the 5 % level with 6 seeds, 7 are the fewest that can" in two
    assert "by a t-test; half" in verdict(
        compare(study(sam=[1.0, -1.2, 1.5, -0.3, 0.4, -0.2]), "sgd", "wilcoxon"), "sgd"
    )
    with pytest.raises(ValueError, match="test='z'"):
        compare(study(sam=clear), "sgd", "z")


def test_verdict_goes_by_the_estimate_of_its_test():
    """One seed far below: the mean is negative, yet nine of ten differences, and the signed ranks, are above."""
    d = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, -40.0]
    rows = compare(study(sam=d), "sgd", "wilcoxon", level=0.9)
    assert np.mean(d) < 0 < rows[1].difference
    assert verdict(rows, "sgd").startswith("Better than sgd: sam (+0.")
    assert "at the 10 % level" in verdict(rows, "sgd")


def test_a_score_that_is_no_number_is_named():
    runs = study(sam=[1.0, 2.0, 4.0])
    runs[4] = run("sam", 1, math.nan)
    assert "a score that is no number, so no test is possible: sam" in verdict(compare(runs, "sgd"), "sgd").lower()
