"""Hypotheses that were stated beforehand: confirmed, refuted or undecided, by t-tests, Holm and the stopping rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bisam_lab.budget import Budget
from bisam_lab.recipe import Hypothesis
from bisam_lab.statistics import tost
from bisam_lab.statistics.registered import decided, decision_words

from .results import run, study

ABOVE = (1.2, 0.8, 1.1, 0.9, 1.3, 0.7, 1.05)


PAIRS = [(method, seed) for method in ("sam", "sgd") for seed in (0, 1)]


def stated(direction, margin=0.0, method="sam", baseline="sgd"):
    return Hypothesis(says="As said", method=method, baseline=baseline, direction=direction, margin=margin)


def one(direction, margin=0.0, d=ABOVE, **given):
    (found,) = decided([stated(direction, margin)], study(sam=d), **given)
    return found


@pytest.mark.parametrize(
    ("direction", "margin", "decision"),
    [
        ("greater", 0.0, "confirmed"),
        ("greater", 0.5, "confirmed"),
        ("greater", 1.0, "undecided"),
        ("greater", 2.0, "refuted"),
        ("less", 0.0, "refuted"),
        ("less", 0.5, "refuted"),
        ("equivalent", 0.5, "refuted"),
        ("equivalent", 1.0, "undecided"),
        ("equivalent", 2.0, "confirmed"),
    ],
)
def test_a_difference_of_one_point(direction, margin, decision):
    found = one(direction, margin)
    assert found.decision == decision
    assert (found.n, found.difference) == (7, pytest.approx(np.mean(ABOVE)))
    edge = {"greater": margin, "less": -margin, "equivalent": margin}[direction]
    within = direction == "equivalent" and np.mean(ABOVE) < margin
    p = tost(ABOVE, margin).p if within else stats.ttest_1samp(ABOVE, edge).pvalue
    assert found.p == pytest.approx(p, rel=1e-6)
    t = stats.t.ppf(0.95 if direction == "equivalent" else 0.975, 6) * np.std(ABOVE, ddof=1) / math.sqrt(7)
    assert (found.low, found.high) == pytest.approx((np.mean(ABOVE) - t, np.mean(ABOVE) + t))
    assert found.level == (0.9 if direction == "equivalent" else 0.95)


def test_less_is_greater_from_the_other_side():
    mirrored = one("less", 0.5, [-d for d in ABOVE])
    assert (mirrored.decision, mirrored.p) == ("confirmed", pytest.approx(one("greater", 0.5).p))


def test_holm_corrects_over_the_hypotheses():
    both = decided([stated("greater"), stated("greater", 0.9)], study(sam=ABOVE))
    assert both[0].p == pytest.approx(2 * one("greater").p)
    assert both[1].p == pytest.approx(one("greater", 0.9).p)


def test_holm_counts_those_that_have_no_test_yet():
    """Else a study that trains its variants one after the other would decide each without a correction."""
    other = Hypothesis(says="There", method="sam", baseline="sgd", direction="less", variant="later")
    first, second = decided([stated("greater"), other], study(sam=ABOVE))
    assert first.p == pytest.approx(2 * one("greater").p)
    assert (second.decision, second.why) == ("undecided", "a test needs two pairs")
    assert math.isnan(second.p)


def test_the_statement_says_at_what_cost_the_methods_are_compared():
    budget = Budget("passes").extended("", 6, {"sgd": 1, "sam": 2})
    runs = [replace(r, equal_cost=r.method == "sgd") for r in study(sam=ABOVE)]
    (found,) = decided([stated("greater")], runs, budget=budget)
    assert (found.n, found.states) == (7, "sam is above sgd, at equal cost in passes")
    assert one("greater", 1).states == "sam is more than 1 point above sgd"


def test_the_stopping_rule_takes_its_seeds_no_fewer_and_no_more():
    found = one("greater", stopping=5)
    assert (found.n, found.difference) == (5, pytest.approx(np.mean(ABOVE[:5])))
    few = one("greater", stopping=8)
    assert (few.decision, few.why) == ("undecided", "it stops at 8 seeds, and 7 are there")
    assert math.isnan(few.p)
    later = one("greater", stopping=3, first_seed=2)
    assert later.difference == pytest.approx(np.mean(ABOVE[2:5]))
    assert one("greater", stopping="until the money is spent").n == 7


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([run("sgd", 0, 0.8)], "a test needs two pairs"),
        (study(sam=(1.0, 1.0, 1.0)), "the same difference at every seed, so no test is possible"),
        (
            [run(m, s, 0.1 + 0.01 * s, "collapsed") for m in ("sam", "sgd") for s in (0, 1)],
            "every run of both failed to train",
        ),
        ([run(m, s, math.nan if m == "sam" else 0.8) for m in ("sam", "sgd") for s in (0, 1)], "a score is no number"),
    ],
    ids=["no pairs", "no spread", "failed", "nan"],
)
def test_why_nothing_can_be_decided(runs, why):
    (found,) = decided([stated("greater")], runs)
    assert (found.decision, found.why) == ("undecided", why)


def test_false_decisions_are_at_most_one_in_twenty():
    rng = np.random.default_rng(2)
    for direction, centre in (("greater", 0.3), ("equivalent", 0.3)):
        d = rng.normal(centre, 0.2, (250, 8))
        wrong = [one(direction, 0.3, each).decision != "undecided" for each in d]
        assert np.mean(wrong) < 0.09, direction


def test_in_words():
    assert decision_words(one("greater", 0.5)).startswith(
        "Confirmed: sam is more than 0.5 points above sgd. +1.01 points ["
    )
    assert decision_words(one("equivalent", 2.0)).endswith("(90 % interval), p < 0.0001, n = 7.")
    assert decision_words(one("less", stopping=9)) == (
        "Undecided: sam is below sgd. It stops at 9 seeds, and 7 are there."
    )
