"""Trials of processes that die at any moment."""

import dataclasses

import pytest
from optuna.trial import TrialState

from bisam_lab.tuning import claim as claiming
from bisam_lab.tuning.claim import claim, recover
from bisam_lab.tuning.tuning import ended

from .small import small


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_the_trial_of_a_dead_process_is_run_again_but_not_for_ever(kind, tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path}/t.db" if kind == "sqlite" else None
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage=storage)
    study = tuning.create()
    for _ in range(3):
        claimed = claim(tuning, study)
        assert claimed.settings == {"rho": 0.4}
        recover(tuning, study)
        assert claim(tuning, study) is None, "a living one is left alone"
        claimed._lock.release()  # as the kernel does
        recover(tuning, study)
    (last,) = [trial for trial in study.trials if ended(trial)]
    assert last.user_attrs["error"] == "its process died, 3 times"
    assert claim(tuning, study) is None
    if kind == "sqlite":
        more = dataclasses.replace(tuning, trials=3)
        elsewhere, here = (claim(more, study) for _ in range(2))
        elsewhere.trial.set_user_attr("place", "another machine")
        recover(more, study)
        assert study.trials[elsewhere.trial.number].state == TrialState.RUNNING
        monkeypatch.setattr(claiming, "DEAD", -1.0)
        recover(more, study)
        assert study.trials[elsewhere.trial.number].state == TrialState.FAIL
        assert study.trials[here.trial.number].state == TrialState.RUNNING
        here.put_back()
