"""The page of the results: what it says of results whose answer is known."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
NOISE = np.random.default_rng(4).normal(0, 0.002, 10)
BASE = 0.7 + np.random.default_rng(5).normal(0, 0.01, 10)


@pytest.fixture(scope="module")
def drawn():
    sys.path.insert(0, str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "docs" / "results_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method, gain=None, like=None, epochs=1.0, edge=()):
    scores = BASE if gain is None else BASE + gain / 100 + NOISE
    told = {"method": method, "epochs": epochs, "like": like, "tried": [[0.1, 0.2, 0.7]] * 3, "rate": 0.1, "rho": 0.2}
    return told | {"at_edge": list(edge), "scores": scores.tolist(), "passes": 2.0, "failed": 0}


def setting(data, *rows, share=0.4, noise="symmetric", norm="batch", whole=True):
    return {
        "date": "2026-01-02",
        "recipe": {
            "data": {"name": data, "label_noise": share, "noise": noise, "image_size": 14, "train_size": 2000},
            "model": {"name": "resnet-8", "options": {"norm": norm}},
            "train": {"epochs": 15, "batch_size": 64},
        },
        "tuning_seeds": 2,
        "finals": {"points": 4, "seeds": 8},
        "seeds": 10,
        "contestants": len(rows) + (not whole),
        "hardware": {"processor": "a CPU", "device": "cpu", "threads": 1, "torch": "2.15.0"},
        "rows": list(rows),
    }


@pytest.fixture
def told(drawn, tmp_path, monkeypatch):
    """Write results, and return the tables that are drawn from them."""

    def write(**settings):
        (tmp_path / "evidence.json").write_text(json.dumps(settings))
        monkeypatch.setattr(drawn, "RESULTS", tmp_path / "evidence.json")
        monkeypatch.setattr(drawn, "frontier", list)
        monkeypatch.setattr(drawn, "REGISTERED", tmp_path / "registered.json")
        monkeypatch.setattr(drawn, "RANKING", tmp_path / "ranking.json")
        return drawn.tables()

    return write


USUAL = (row("sgd", -5), row("sgd", 0.9, epochs=2), row("sam"))


def test_a_bound_that_wins_on_two_data_sets_is_named(told):
    better = (*USUAL, row("bisam-log", 2), row("bisam-tanh", 0.05, like="sam"))
    tables = told(a=setting("digits", *better), b=setting("cifar10", *better, noise="cifar-n:worse", share=0))
    counted = "a lower bound at SAM's cost was better than SAM in 2 of 4 comparisons and worse in 0"
    assert f"in 2 settings (Digits and CIFAR-10), {counted}" in tables["results-answer"]
    assert tables["results-answer"].endswith("Better on two data sets: `bisam-log`.")
    assert tables["verdict"] == tables["results-answer"]
    line = next(line for line in tables["results-summary"].splitlines() if "human labels (worse)" in line)
    assert line.endswith("| bisam-log | none | bisam-tanh, tuned as sam |")
    assert "#cifar-10-human-labels-worse-with-batchnorm" in line


def test_one_that_wins_on_one_or_loses_is_not(told):
    tables = told(
        a=setting("digits", *USUAL, row("bisam-log", 2), row("momentumsam", 0.02)),
        b=setting("digits", *USUAL, row("bisam-log", 2), norm="none"),
        c=setting("cifar10", *USUAL, row("bisam-log", -2), share=0),
    )
    assert "better than SAM in 2 of 3 comparisons and worse in 1" in tables["results-answer"]
    assert tables["results-answer"].endswith(
        "No bound was better on two data sets, so none is recommended over SAM for accuracy."
    )
    against = tables["results-against"]
    assert "- CIFAR-10, clean labels, with BatchNorm: bisam-log is below SAM, -2." in against
    assert against.count(": SGD, at equal cost, is above SAM, +0.") == 3
    assert against.count("MomentumSAM, with one pass, is not shown to be below SAM") == 1
    assert "at half the cost" not in against


def test_a_setting_is_shown_when_all_have_been_tested(told):
    of = (*USUAL, row("bisam-log"))
    tables = told(a=setting("digits", *of), b=setting("cifar10", *of, whole=False))
    assert "in 1 setting (Digits)" in tables["results-answer"]
    assert "CIFAR-10" not in "".join(tables.values())


def test_earlier_settings_are_counted_and_shown_where_they_stand(drawn):
    earlier = drawn.frontier()
    assert len(earlier) == len(json.loads((ROOT / "results" / "frontier.json").read_text()))
    line = next(line for line in drawn._summary(earlier).splitlines() if "Fashion-MNIST, clean" in line)
    assert line == "| [Fashion-MNIST, clean](frontier.md) | 8 | +0.94 [+0.37, +1.51] | none | none | none |"


def test_a_row_has_mean_interval_both_tests_and_its_edge(told):
    tables = told(fashion=setting("fashion-mnist", *USUAL, row("bisam-log", 0.02, edge=["rho"])))
    line = next(line for line in tables["results-settings"].splitlines() if line.startswith("| bisam-log |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    d = 100 * (np.array(row("bisam-log", 0.02)["scores"]) - BASE)
    half = 2.262157 * d.std(ddof=1) / np.sqrt(10)  # the t table's 97.5 % point on 9 degrees
    assert cells[1:4] == ["0.1", "0.2 (edge)", "3"]
    assert cells[5] == f"{d.mean():+.2f} [{d.mean() - half:+.2f}, {d.mean() + half:+.2f}]"
    assert cells[8] == "equivalent within 0.3 points"
    assert "    python benchmarks/evidence.py fashion --data-dir data" in tables["results-settings"]


def test_registered_hypotheses_are_told_with_their_outcome(told, drawn, tmp_path):
    one = {"says": "It is so", "decision": "refuted", "difference": -1.0, "low": -2.0, "high": 0.5, "p": 0.04, "n": 10}
    rows = [{"method": "sam", "mean": 60.0, "std": 1.5}, {"method": "bisam-log", "mean": 59.0, "std": 2.0}]
    outcome = {"variant": "a", "rows": rows}
    kept = {"hypotheses": [{**one, "variant": "a"}], "outcomes": [outcome]}
    (tmp_path / "registered.json").write_text(json.dumps(kept))
    line = told(a=setting("digits", *USUAL))["results-registered"].splitlines()[-1]
    assert line == "| It is so | **refuted** | 59.00 ± 2.00 | 60.00 ± 1.50 | -1.00 [-2.00, +0.50] | 0.0400 | 10 |"


def test_the_ranking_is_told_with_both_correlations_and_by_rise(told, tmp_path):
    found = {"spearman": 0.5, "low": 0.1, "high": 0.8}
    method = {"accuracy": [70.0, 72.0], "rise_error_batch": 4.0, "rise_error_held_out": 1.0}
    higher = {**method, "rise_error_held_out": 1.5, "accuracy": [74.0, 76.0]}
    kept = {"outcome": "confirmed", "seeds": 2, "rho": 0.1, "processor": "a CPU", "torch": "2", "date": "2026-01-02"}
    kept |= {"rise of held-out error": found, "rise of the batch's error": {**found, "low": -0.1}}
    kept |= {"methods": {"sam": method, "asam": higher}}
    (tmp_path / "ranking.json").write_text(json.dumps({"digits-40": kept}))
    lines = told(a=setting("digits", *USUAL))["results-ranking"].splitlines()
    assert lines[2] == "| digits-40 | **confirmed** | +0.50 [+0.10, +0.80] | +0.50 [-0.10, +0.80] | 2 |"
    assert lines[-2:] == ["| asam | +1.50 | +4.00 | 75.00 ± 1.41 |", "| sam | +1.00 | +4.00 | 71.00 ± 1.41 |"]


def test_what_was_not_run_is_said(told):
    tables = told(a=setting("digits", *USUAL))
    assert tables["results-ranking"] == tables["results-registered"] == "It has not been run yet."
