"""Example programs that no other test runs."""

import math
import re

import pytest

from tests.pages import run_example


def test_functional_sam_trains_a_language_model_beside_sam(monkeypatch, capsys):
    run_example("functional_sam", monkeypatch, "--steps", "30")
    said = capsys.readouterr().out
    for method in ("sam", "functional"):
        losses = [float(loss) for loss in re.findall(rf"^{method} .*w \+ eps ([\d.]+)", said, re.MULTILINE)]
        assert losses[-1] < losses[0]
        assert math.isfinite(float(re.findall(rf"{method}: ([\d.]+)", said.splitlines()[-1])[0]))


@pytest.mark.parametrize("method", ["bisam", "sam"])
def test_binary_labels_are_learnt_and_the_log_holds_a_lower_bound(method, monkeypatch, capsys):
    run_example("binary_labels", monkeypatch, "--method", method, "--epochs", "3")
    said = capsys.readouterr().out
    epochs = [(float(a), float(b)) for a, b in re.findall(r"climbed (\S+), wrong labels (\S+)", said)]
    assert len(epochs) == 6
    assert all(value <= wrong for value, wrong in epochs) == (method == "bisam")
    assert all(float(share) < 0.1 for share in re.findall(r"wrong test labels ([\d.]+)", said))
