"""What a run leaves behind survives a file."""

import json

from bisam_lab.recipe import load
from bisam_lab.run.result import RunResult
from bisam_lab.run.train import train
from tests.lab.run.runs import TINY


def test_results_survive_json():
    result = train(load("digits", [*TINY, "train.epochs=2"]), "sgd", 0)
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
