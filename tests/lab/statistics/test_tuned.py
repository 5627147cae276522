"""A small paired study: who is chosen on which seeds, and what the table says."""

import math

import pytest

from bisam_lab.statistics.tuned import compared, markdown, tuned

SEEDS = {"tuning": range(2), "seeds": range(10, 13)}


def score(name, value, seed):
    """The best value is 2 for a and 3 for b; b is better by a tenth, but for the seed's own part."""
    best, lift = {"a": (2, 0.0), "b": (3, 0.1)}[name]
    return 0.5 + lift - 0.05 * abs(value - best) + 0.01 * (seed % 2) * (1 if name == "a" else 2)


def test_the_best_mean_on_the_tuning_seeds_meets_the_others_on_fresh_ones():
    asked, said = [], []

    def counted(*arguments):
        asked.append(arguments)
        return score(*arguments)

    a, b = tuned(counted, {"a": (1, 2, 3), "b": (1, 2, 3)}, **SEEDS, tell=said.append)
    assert (a["chosen"], a["edge"], b["chosen"], b["edge"]) == (2, False, 3, True)
    assert a["tried"] == pytest.approx([0.455, 0.505, 0.455])
    assert b["scores"] == pytest.approx([0.6, 0.62, 0.6])
    assert {seed for *_, seed in asked[:6]} == {0, 1}
    assert [each for each in asked if each[2] >= 10] == [("a", 2, s) for s in (10, 11, 12)] + [
        ("b", 3, s) for s in (10, 11, 12)
    ]
    assert len(said) == 2


def test_the_choice_is_made_on_other_examples_where_there_are_some():
    def validation(name, value, seed):
        assert seed in SEEDS["tuning"]
        return -value

    (a,) = tuned(score, {"a": (1, 2, 3)}, **SEEDS, validation=validation)
    assert (a["chosen"], a["tried"]) == (1, [-1, -2, -3])
    assert a["scores"] == pytest.approx([0.45, 0.46, 0.45])


def test_the_table_has_paired_differences_in_the_unit_of_the_score():
    rows = tuned(score, {"a": (1, 2, 3), "b": (1, 2, 3)}, **SEEDS)
    b = compared(rows, "a")[1]
    assert b.differences == pytest.approx((10, 11, 10))
    lines = markdown(rows, ["a"], "return", scale=2.0).splitlines()
    assert lines[0] == "| method | chosen | return | minus a |"
    assert lines[2] == "| a | 2 | 100.67 ± 1.15 |  |"
    assert lines[3].startswith("| b | 3 (at the edge) | 121.33 ± 2.31 | +20.67* [")
    low, high = (float(word) for word in lines[3].partition("[")[2].rstrip("] |").split(", "))
    half = 2 * 4.302653 * math.sqrt(1 / 3) / math.sqrt(3)  # Student's quantile of two degrees of freedom
    assert (low, high) == pytest.approx((20.667 - half, 20.667 + half), abs=0.01)


def test_pairs_that_do_not_differ_have_no_interval():
    rows = [{"method": name, "chosen": None, "scores": [0.5, 0.6]} for name in "ab"]
    assert markdown(rows, ["a"], "%").splitlines()[3] == "| b |  | 55.00 ± 7.07 | +0.00 |"


def test_unequal_budgets_and_seeds_used_twice_are_refused():
    with pytest.raises(ValueError, match=r"grids=.*'a': 1, 'b': 2.* must have one length"):
        tuned(score, {"a": (1,), "b": (1, 2)}, **SEEDS)
    with pytest.raises(ValueError, match=r"seeds=\[1, 2\] must not be among those of the tuning, \[0, 1\]"):
        tuned(score, {"a": (1,)}, tuning=range(2), seeds=(1, 2))


def test_a_value_that_diverges_is_not_the_best():
    for diverging in (1.0, 3.0):
        (row,) = tuned(
            lambda name, value, seed, bad=diverging: math.nan if value == bad else value,
            {"sam": [1.0, 2.0, 3.0]},
            tuning=[0],
            seeds=[1, 2],
        )
        assert row["chosen"] == (2.0 if diverging == 3.0 else 3.0)


@pytest.mark.parametrize("lacking", [{"grids": {"sam": []}}, {"tuning": []}, {"seeds": []}])
def test_nothing_to_try_is_told(lacking):
    given = {"grids": {"sam": [1.0]}, "tuning": [0], "seeds": [1]} | lacking
    with pytest.raises(ValueError, match=r"must each hold something, such as seeds=\[0, 1\]"):
        tuned(lambda name, value, seed: value, given.pop("grids"), **given)
