"""The recommendation for a budget: it is the best of what was measured, and what it says can be written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import Optimizer

import bisam
from bisam import Recommendation, recommend
from bisam.recommendation import TOLERANCE, _recommendations
from bisam.testing import Net
from tests.steps import sgd

LABELS = [None, "clean", "noisy"]
RESULTS = Path(__file__).parent.parent / "results" / "frontier.json"


def mean(found):
    return sum(gain.mean for gain in found.gains) / len(found.gains)


@pytest.mark.parametrize("labels", LABELS)
@given(budget=st.floats(1, 3))
def test_nothing_within_the_budget_was_better(labels, budget):
    found = recommend(budget, labels)
    assert found.passes <= budget + TOLERANCE
    within = [other for other in _recommendations(labels) if other.passes <= budget + TOLERANCE]
    assert mean(found) == max(map(mean, within))
    assert mean(recommend(budget + 1, labels)) >= mean(found)
    assert {gain.setting.rpartition("-")[2] for gain in found.gains} == ({labels} if labels else {"clean", "noisy"})


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("budget", [1.0, 1.2, 1.5, 2.0])
def test_it_says_so_in_one_line(labels, budget):
    line = str(recommend(budget, labels))
    assert "\n" not in line
    assert f"{recommend(budget, labels).passes:.2f} x the passes of SGD" in line
    assert line.count(" points on ") == len(recommend(budget, labels).gains)


def test_the_numbers_are_those_of_the_results():
    kept = json.loads(RESULTS.read_text())
    for found in _recommendations("noisy"):
        if found.call == "SAM(base, model=model)":
            break
    for gain in found.gains:
        sam, plain = (
            next(r for r in kept[gain.setting]["rows"] if (r["method"], r["epochs"]) == (name, 1))
            for name in ("sam", "sgd")
        )
        differences = [100 * (a - b) for a, b in zip(sam["scores"], plain["scores"], strict=True)]
        assert gain.mean == pytest.approx(sum(differences) / len(differences), abs=0.006)
        assert gain.low < gain.mean < gain.high


def test_what_it_says_can_be_written():
    calls = {found.call for labels in LABELS for found in _recommendations(labels)}
    assert {"base", "SAM(base, model=model)", "TailSAM(base, model=model, total_steps=steps, tail=0.2)"} < calls
    for call in calls:
        model = Net()
        names = {**vars(bisam), **vars(bisam.cadence), "base": sgd(model, momentum=0.9), "model": model, "steps": 10}
        code, _, more = call.partition(" with ")
        assert isinstance(eval(code.partition(", for ")[0], names), Optimizer)
        if more:
            assert callable(eval(more, {"bisam": bisam}))


@pytest.mark.parametrize(
    ("budget", "labels", "words"),
    [
        (0.9, None, r"budget=0\.9 must be 1 or more"),
        (float("nan"), None, "budget=nan"),
        (1.5, "wrong", "labels='wrong'"),
    ],
)
def test_errors(budget, labels, words):
    with pytest.raises(ValueError, match=words):
        recommend(budget, labels)
    with pytest.raises(TypeError, match="budget='2'"):
        recommend("2")


def test_a_plain_value():
    assert recommend(1.2) == Recommendation(**vars(recommend(1.2)))
