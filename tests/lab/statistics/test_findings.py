"""What is said of each method is what the verdict says."""

import math

import pytest

from bisam_lab.statistics import compare, verdict
from bisam_lab.statistics.findings import findings

from .results import run, study


def found(runs, test="t"):
    return findings(compare(runs, "sgd", test), "sgd")


def test_each_method_is_judged_as_the_verdict_judges_it():
    worse, open_ = [-7.0, -7.2, -6.8, -7.1, -6.9, -7.0], [1.0, -1.2, 1.5, -0.3, 0.4, -0.2]
    better = [5.0, 5.2, 4.8, 5.1, 4.9, 5.0]
    runs = study(asam=better, gsam=worse, sam=open_, esam=[9.0, 9.2, 8.8, 9.1, 8.9, 9.0])
    runs += [run("bisam-log", seed, 0.1, "collapsed") for seed in range(6)]
    said = found(runs)
    kinds = {one.method: one.kind for one in said.methods}
    assert kinds == {"esam": "better", "asam": "better", "gsam": "worse", "sam": "open", "bisam-log": "failed"}
    assert list(kinds) == ["esam", "asam", "gsam", "sam", "bisam-log"], "the largest difference of a kind first"
    assert said.headline == "2 of 4 methods are better than sgd, and 1 of 4 methods is worse than sgd."
    rows = compare(runs, "sgd")
    asam = next(row for row in rows if row.method == "asam")
    mine = next(one for one in said.methods if one.method == "asam")
    assert (mine.difference, mine.low, mine.high, mine.p) == (asam.difference, asam.low, asam.high, asam.p_adjusted)
    text = verdict(rows, "sgd")
    assert all(remark.rstrip(".")[1:] in text for remark in said.remarks)
    assert said.remarks[-1] in text, "what these seeds could have shown"


@pytest.mark.parametrize(
    ("runs", "test", "why"),
    [
        (study(sam=[1.0]), "t", "too few pairs"),
        (study(sam=[1.0, 1.0]), "t", "the same difference at every seed"),
        (study(sam=[1.0, math.nan, 2.0]), "t", "a score is no number"),
        (study(sam=[1.0, 2.0, 3.0]), "wilcoxon", "3 seeds; 6 are the fewest"),
    ],
)
def test_of_what_no_test_can_tell_nothing_is_said(runs, test, why):
    said = found(runs, test)
    assert said.methods[0].kind == "silent" and why in said.methods[0].why
    assert said.headline == "Nothing can be said yet."


def test_the_headline_of_one_method_of_none_and_of_a_failed_baseline():
    assert found(study(sam=[5.0, 5.2, 4.8])).headline == "sam is better than sgd."
    assert found(study(sam=[1.0, -1.2, 0.4])).headline == "There is no evidence that sam differs from sgd."
    both = study(sam=[1.0, -1.2, 0.4], gsam=[0.2, -1.0, 1.1])
    assert found(both).headline == "There is no evidence that any method differs from sgd."
    assert found(study(sam=[1.0])[:1]).headline == "There is nothing to compare with sgd."
    broken = [run("sgd", seed, 0.1, "diverged") for seed in range(3)]
    assert found([*broken, *study(sam=[1.0, 2.0, 1.5])[3:]]).headline.startswith("Nothing can be compared")
