"""Example programs that no other test runs."""

import math
import re

from tests.pages import run_example


def test_functional_sam_trains_a_language_model_beside_sam(monkeypatch, capsys):
    run_example("functional_sam", monkeypatch, "--steps", "30")
    said = capsys.readouterr().out
    for method in ("sam", "functional"):
        losses = [float(loss) for loss in re.findall(rf"^{method} .*w \+ eps ([\d.]+)", said, re.MULTILINE)]
        assert losses[-1] < losses[0]
        assert math.isfinite(float(re.findall(rf"{method}: ([\d.]+)", said.splitlines()[-1])[0]))
