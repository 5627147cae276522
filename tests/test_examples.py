"""Example programs that no other test runs."""

import json
import math
import re
import runpy

import pytest
import torch

from tests.pages import ROOT, run_example


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


def test_nodes_of_a_graph_are_classified(monkeypatch, tmp_path, capsys):
    pytest.importorskip("networkx")
    small = ["--seeds", "2", "--tuning-seeds", "1", "--epochs", "1"]
    run_example("graph", monkeypatch, *small, "--out", str(tmp_path / "graphs.json"))
    rows = json.loads((tmp_path / "graphs.json").read_text())["karate"]["rows"]
    assert [row["method"] for row in rows] == ["adam", "sam", "asam", "bisam-tanh", "bisam-log"]
    assert all(len(row["scores"]) == 2 and len(row["values"]) == 5 for row in rows)
    assert "| adam | 0." in capsys.readouterr().out
    example = runpy.run_path(str(ROOT / "examples" / "graph.py"))
    graph = example["karate"](1000)
    assert sorted(torch.cat([graph.train, graph.validation, graph.test]).tolist()) == list(range(34))
    found = example["accuracies"](graph, "bisam-log", 0.03, 0.2, 1000, 60)
    assert min(found) > 0.65  # chance is a half


@pytest.fixture
def policies(monkeypatch):
    pytest.importorskip("gymnasium")
    return runpy.run_path(str(ROOT / "examples" / "policy_gradient.py"))


def test_advantages_are_those_of_the_paper(policies):
    rewards, values = torch.rand(5, 2), torch.rand(6, 2)
    ended = torch.tensor([[False, False], [True, False], [False, False], [False, False], [False, False]])
    found = policies["estimate"](values, list(rewards), list(ended))
    discount, trace = policies["DISCOUNT"], policies["TRACE"]
    surprise = rewards + discount * ~ended * values[1:] - values[:-1]
    whole = sum((discount * trace) ** k * surprise[k, 1] for k in range(5))
    assert found[0, 1].item() == pytest.approx(whole.item(), rel=1e-5)
    assert found[0, 0].item() == pytest.approx((surprise[0, 0] + discount * trace * surprise[1, 0]).item(), rel=1e-5)


@pytest.mark.parametrize("bound", ["tanh", "log"])
def test_what_bisam_climbs_is_below_the_share_of_forgotten_good_actions(policies, bound):
    torch.manual_seed(0)
    logits, actions, advantages = 3 * torch.randn(200, 3), torch.randint(3, (200,)), torch.randn(200)
    batch = policies["Batch"](torch.zeros(200, 1), actions, advantages)
    weights = advantages.clamp(min=0)
    share = (weights * (logits.argmax(1) != actions)).sum() / weights.sum()
    assert policies["forgotten"](bound, logits, batch) <= share
    changed = torch.where(advantages[:, None] < 0, 9 * torch.randn(200, 3), logits)  # the others have no part
    assert policies["forgotten"](bound, changed, batch) == policies["forgotten"](bound, logits, batch)


def test_a_policy_is_trained_and_tested_in_noise(policies):
    torch.set_num_threads(1)
    found = policies["run"]("CartPole-v1", "bisam-log", 0.01, 0.005, 0, 2)
    assert set(found) == {"clean", "actions", "weights"}
    assert all(8 <= value <= 500 for value in found.values())
