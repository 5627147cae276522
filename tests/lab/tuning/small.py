"""A tuning small enough for a test, and trials run in the test's own process."""

import csv

from bisam_lab.recipe import load
from bisam_lab.run.observer import Observer
from bisam_lab.tuning.claim import claim
from bisam_lab.tuning.result import read_trials
from bisam_lab.tuning.space import Space
from bisam_lab.tuning.trial import run_trial
from bisam_lab.tuning.tuning import Tuning

TINY = ["data.train_size=96", "data.validation_size=50", "model.options.width=2", "train.batch_size=32"]


def small(folder, *given, method="sam", space=(), trials=3, epochs=3, **fields):
    recipe = load("digits", [*TINY, f"train.epochs={epochs}", *given])
    chosen = Space.of(recipe, method, given=space)
    return Tuning(folder, recipe, method, chosen, fields.pop("seeds", 1), trials, **fields)


def work(tuning, study, observer=None):
    """Run trials in this process until none is left."""
    while (claimed := claim(tuning, study)) is not None:
        run_trial(claimed, observer or Observer(), lambda *told: None)
    return read_trials(tuning, study)


def table(folder):
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
