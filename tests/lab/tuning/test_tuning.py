"""A tuning in a folder: whose it is."""

import json

import pytest

from bisam_lab.recipe import RecipeError
from bisam_lab.tuning.claim import claim
from bisam_lab.tuning.result import read_trials

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


def test_two_that_begin_on_one_storage_at_once(tmp_path):
    """Their locks lie in two folders, so both may write what the study is of. The trials tell them apart."""
    storage = f"sqlite:///{tmp_path / 's.db'}"
    mine, theirs = (small(tmp_path / k / "t", f"train.lr=0.{k}", storage=storage, epochs=1) for k in "12")
    study = mine.create()
    work(small(mine.folder, "train.lr=0.1", storage=storage, epochs=1, trials=1), study)
    study.set_user_attr(
        "bisam", json.dumps({"schema": 1, **theirs.identity})
    )  # as the other writes it who read it before we wrote it
    for look in (lambda: claim(mine, study), lambda: read_trials(mine, study)):
        with pytest.raises(RecipeError, match=r"holds another tuning \(train\.lr=0\.2 there, 0\.1 now\)"):
            look()
    for look in (theirs.create, lambda: claim(theirs, study), lambda: read_trials(theirs, study)):
        with pytest.raises(RecipeError, match=r"holds trials of another tuning \(trial 0\)"):
            look()


@pytest.mark.parametrize("stored", ["", "[]", "{}", '{"schema": "x"}', 7, "[" * 5000])
def test_a_damaged_study_is_one_sentence(stored, tmp_path):
    tuning = small(tmp_path / "t")
    tuning.create().set_user_attr("bisam", stored)
    with pytest.raises(RecipeError, match="is damaged"):
        tuning.create()
