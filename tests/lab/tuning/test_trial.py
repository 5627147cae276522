"""A trial: validation alone decides, bad settings are pruned, and a stopped trial goes on."""

import dataclasses

import pytest
from optuna.trial import TrialState

import bisam_lab
import bisam_lab.run.setup
from bisam_lab.data import load_splits
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.train import train
from bisam_lab.tuning import result as results
from bisam_lab.tuning.claim import claim
from bisam_lab.tuning.figure import draw_tuning
from bisam_lab.tuning.result import read_trials
from bisam_lab.tuning.trial import TrialError
from bisam_lab.tuning.tuning import FIRST_SEED

from .small import small, table, work


class Poison:
    def __getattr__(self, name):
        raise AssertionError(f"the test set's {name} was asked for")


class StopAt(Observer):
    def __init__(self, steps):
        self.left, self.notes = steps, []

    def step(self, epoch, done, total):
        self.left -= 1
        self.stop = self.left == 0


def test_the_test_set_is_not_touched(tmp_path, monkeypatch):
    def poisoned(recipe, data_dir, seed, tokenizer):
        return dataclasses.replace(load_splits(recipe, data_dir, seed), test=Poison())

    monkeypatch.setattr(bisam_lab.run.setup, "load_splits", poisoned)
    tuning = small(tmp_path / "t", trials=2, epochs=1)
    assert work(tuning, tuning.create()).trials == 2
    with pytest.raises(AssertionError, match="test set"):  # as training to the end does
        train(tuning.recipe, "sam", 0)


def test_the_first_trial_is_the_recipes_own_and_the_score_that_of_train(tmp_path):
    tuning = small(tmp_path / "t", trials=1, seeds=2)
    found = work(tuning, tuning.create())
    results = [train(tuning.recipe, "sam", seed).validation_score for seed in (FIRST_SEED, FIRST_SEED + 1)]
    assert found.best == found.default
    assert found.best.settings == {"rho": 0.4}
    assert found.best.score == pytest.approx(sum(results) / 2)
    assert not list((tmp_path / "t" / "trials").iterdir()), "checkpoints and locks are gone"


def test_awful_settings_are_pruned_and_divergence_is_the_worst_score(tmp_path):
    space = ["lr=1e-5:1e8:log"]
    tuning = small(tmp_path / "t", method="sgd", space=space, trials=11, epochs=4)
    study = tuning.create()
    found = work(tuning, study)
    assert found.trials == 11
    assert found.pruned >= 2
    assert found.best.score >= found.default.score
    for trial in study.trials:
        assert trial.last_step < 4 or trial.state == TrialState.COMPLETE
    assert any(trial.value == 0.0 for trial in study.trials), "a rate of a million diverges"
    assert set(found.importances) == set()  # one parameter has no share
    draw_tuning(study, found, "title", "accuracy", tmp_path / "figure.png")


def test_a_trial_that_cannot_be_trained_is_recorded_and_counts(tmp_path, monkeypatch):
    def failing(*args):
        raise MemoryError("no room")

    tuning = small(tmp_path / "t", trials=1)
    study = tuning.create()
    monkeypatch.setattr("bisam_lab.tuning.seed.Training", failing)
    with pytest.raises(TrialError, match=r"^MemoryError: no room$"):
        work(tuning, study)
    assert claim(tuning, study) is None
    found = read_trials(tuning, study)
    assert (found.failed, found.best) == (1, None)
    results.write_trials(tuning, study)
    (row,) = table(tmp_path / "t")
    assert (row["state"], row["error"]) == ("fail", "MemoryError: no room")


def test_a_stopped_trial_goes_on_from_its_checkpoint(tmp_path):
    whole = small(tmp_path / "whole", trials=2, seeds=2)
    expected = work(whole, whole.create())
    tuning = small(tmp_path / "t", trials=2, seeds=2)
    study, steps = tuning.create(), 0
    for stop_after in (4, 7):  # in the second epoch, and on the second seed: 9 steps a seed
        steps += stop_after
        with pytest.raises(Stopped):
            work(tuning, study, StopAt(stop_after))
    counter = StopAt(-1)
    found = work(tuning, study, counter)
    assert -1 - counter.left == 2 * 18 - steps, "no step was taken twice"
    assert [(t.score, t.settings) for t in found.scored] == [(t.score, t.settings) for t in expected.scored]
    assert found.default is not None
