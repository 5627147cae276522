"""What a run leaves behind survives a file."""

import json

from bisam_lab.recipe import load
from bisam_lab.run.result import RunResult
from bisam_lab.run.train import train
from tests.lab.run.runs import TINY


def test_results_survive_json():
    result = train(load("digits", [*TINY, "train.epochs=2"]), "sgd", 0)
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_what_a_newer_version_says_of_an_epoch_is_left_out():
    values = RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0).to_dict()
    values["history"] = [{"epoch": 1, "train_loss": 1.0, "validation_score": 0.5, "sharpness": 3.0}]
    assert RunResult.from_dict(values).history[0].train_loss == 1.0
