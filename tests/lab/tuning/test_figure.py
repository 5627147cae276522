"""The figure of a tuning, which Optuna draws."""

import math

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from bisam_lab.tuning.figure import _mark, draw_tuning
from bisam_lab.tuning.result import read_trials

from .small import small


def searched(folder, trials):
    """A tuning of rho whose scores were not trained: every fifth trial pruned, every seventh far below."""
    tuning = small(folder, space=["train.lr=0.01:1:log"], trials=trials)
    study = tuning.create()
    study.sampler = RandomSampler(seed=1)  # the scores must not differ from run to run
    for i in range(trials):
        trial = study.ask()
        for dimension in tuning.space:
            dimension.suggest(trial)
        score = 0.1 if i % 7 == 6 else 0.95 - 0.05 * abs(math.log(trial.params["rho"] / 0.2))
        trial.report(score, 1)
        if i % 5 == 4:
            study.tell(trial.number, state=TrialState.PRUNED)
        else:
            study.tell(trial.number, score)
    return study, read_trials(tuning, study)


def test_history_importances_and_slices_are_one_picture(tmp_path):
    before = dict(mpl.rcParams)
    for trials, name in ((12, "whole.png"), (1, "one.png")):
        study, found = searched(tmp_path / name.partition(".")[0], trials)
        assert bool(found.importances) == (trials == 12)
        draw_tuning(study, found, "title", "accuracy", tmp_path / name)
        assert plt.imread(tmp_path / name).shape[:2] == (1200, 1800)
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before, "Optuna's style is gone"


def test_pruned_default_and_best_trials_are_marked(tmp_path):
    _, found = searched(tmp_path / "t", 12)
    axes = Figure().subplots()
    _mark(axes, found, lambda trial: trial.trial)
    marks = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert marks == {
        "pruned": [4, 9],
        "far below": [6],
        "the recipe's own setting": [0],
        "best": [found.best.trial],
    }
    low, high = axes.get_ylim()
    assert low > 0.5, "the better half is shown"
    assert high > found.best.score
