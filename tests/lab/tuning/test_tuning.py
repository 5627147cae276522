"""A tuning in a folder: whose it is."""

import pytest

from bisam_lab.recipe import RecipeError

from .small import small, work


def test_another_study_is_refused_with_the_difference_named(tmp_path):
    small(tmp_path / "t").create()
    small(tmp_path / "t", "seeds=3", "name=x", trials=9).create()
    for other, words in (
        (small(tmp_path / "t", "train.lr=0.3"), r"train.lr=0.1 there, 0.3 now"),
        (small(tmp_path / "t", method="bisam-log"), r"method='sam' there, 'bisam-log' now"),
        (small(tmp_path / "t", space=["rho=0.1:0.5"]), r"space.rho.low=0.00625 there, 0.1 now"),
        (small(tmp_path / "t", seeds=2), r"seeds=1 there, 2 now"),
    ):
        with pytest.raises(RecipeError, match=words):
            other.create()


def test_a_range_without_the_recipes_own_setting(tmp_path):
    tuning = small(tmp_path / "t", space=["rho=0.01:0.1:log"], trials=1, epochs=1)
    found = work(tuning, tuning.create())
    assert found.default is None
    assert found.best.settings["rho"] <= 0.1
