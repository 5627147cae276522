"""What a tuning found."""

import optuna
import pytest

from bisam_lab.tuning import result as results


def test_importances_of_ten_trials():
    study = optuna.create_study(direction="maximize")
    for i in range(12):
        trial = study.ask()
        a, _ = trial.suggest_float("a", 0.1, 1, log=True), trial.suggest_float("b", 0.1, 1, log=True)
        study.tell(trial, a)
        if i == 8:
            assert results._importances(study.trials) == {}
    shares = results._importances(study.trials)
    assert shares["a"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
