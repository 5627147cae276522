"""The result of a run, written and read."""

from bisam_lab.result import RunResult


def test_what_a_newer_version_says_of_an_epoch_is_left_out():
    values = RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0).to_dict()
    values["history"] = [{"epoch": 1, "train_loss": 1.0, "validation_score": 0.5, "sharpness": 3.0}]
    assert RunResult.from_dict(values).history[0].train_loss == 1.0
