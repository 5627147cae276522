"""Failure signatures: each by the real run that its page shows, none in a healthy one, and where they are told."""

import math
import re
import shlex

import pytest
import typer.main

from bisam_lab.cli.app import app
from bisam_lab.cli.options import read
from bisam_lab.run.observer import Observer
from bisam_lab.run.result import Epoch, RunResult
from bisam_lab.run.signatures import SIGNATURES, found, signatures
from bisam_lab.run.train import train
from bisam_lab.statistics.by_variant import compare_variant
from bisam_lab.statistics.signatures import in_words
from tests.pages import ROOT, command_lines, write_files

PAGE = "docs/lab/signatures.md"


def shown_on_the_page():
    parts = re.split(r"^### ([\w-]+)$", (ROOT / PAGE).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (command_lines(part) for part in parts[2::2]), strict=True))


class Told(Observer):
    def __init__(self):
        self.found, self.notes = [], []

    def signature(self, shown, epoch):
        self.found.append((shown.name, epoch))

    def note(self, text):
        self.notes.append(text)


def run_of(line, observer):
    """Train what a command line says, without the process."""
    words = shlex.split(line)
    command = typer.main.get_command(app).commands[words[0]]
    given = command.make_context("bisam", words[1:]).params
    method = given["method"]
    recipe = read("digits", given["overrides"], label_noise=given["label_noise"], methods=f"['{method}']")
    return train(recipe, method, given["seed"], observer=observer)


def test_the_page_shows_each_signature():
    assert list(shown_on_the_page()) == list(SIGNATURES)
    for one in SIGNATURES.values():
        assert (ROOT / one.page).is_file()
        assert len(one.advice) < 300


@pytest.mark.parametrize("name", [name for name, one in SIGNATURES.items() if one.holds is not None])
@pytest.mark.filterwarnings("ignore:cadence=Tail")
def test_a_real_run_shows_it(name, tmp_path, monkeypatch):
    (line,) = shown_on_the_page()[name]
    write_files(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    observer = Told()
    result = run_of(line, observer)
    shown = [one.name for one in result.signatures]
    assert name in shown
    live = [one for one, epoch in observer.found if epoch <= len(result.history)]
    assert len(live) == len(set(live)), "told once"
    assert set(live) == {one for one in shown if not SIGNATURES[one].at_end}
    assert (
        result.to_dict()["signatures"]
        == shown
        == [one.name for one in RunResult.from_dict(result.to_dict()).signatures]
    )


@pytest.mark.parametrize(
    "method",
    ["sgd", "sam", "asam", "bisam-tanh", "bisam-log", "tailsam", "esam", "momentumsam"],
)
def test_a_healthy_run_shows_none(method):
    sizes = ["train.epochs=3", "data.train_size=512", "sharpness.rho=0.2", "train.batch_size=32"]
    observer = Told()
    result = train(read("digits", sizes, label_noise=0, methods=f"[{method}]"), method, 0, observer=observer)
    assert result.test_score > 0.7
    assert (result.signatures, observer.found) == ((), [])


def epochs(n=4, **numbers):
    """Epochs of a run in which nothing is amiss, but for these numbers: one, or one for each epoch."""
    normal = {"rho": 0.05, "climbed": 1.0, "vanished": 0.0, "ascent_samples": 30.0, "error_rise": 0.02}
    normal |= {"perturbed_loss": 1.0, "chance_loss": math.log(10), "same_class": 0.15}
    each = {k: v if isinstance(v, list) else [v] * n for k, v in (normal | numbers).items()}
    loss = each.pop("train_loss", [0.5] * n)
    return [Epoch(i + 1, loss[i], 0.9, **{k: v[i] for k, v in each.items()}) for i in range(n)]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({}, []),
        ({"vanished": [0.3, 0.0, 0.0, 0.0]}, []),  # the first step of MomentumSAM has no momentum
        ({"vanished": 0.11}, ["vanishing-ascent"]),
        ({"vanished": [0.25], "steps": 4, "n": 1}, []),  # nor has that of AsyncSAM a gradient, in epochs of few steps
        ({"vanished": [0.75], "steps": 4, "n": 1}, ["vanishing-ascent"]),
        ({"vanished": [0.5, 0.0], "steps": 100, "climbed": [0.06, 1.0], "n": 2}, []),  # 3 of 106 steps
        ({"vanished": [0.0, 0.5], "steps": 100, "climbed": [0.06, 1.0], "n": 2}, ["vanishing-ascent"]),
        ({"ascent_samples": [1.5, 1.5, 2.1, 2.1]}, []),
        ({"ascent_samples": [1.5, 1.5, 1.9, 2.1]}, ["handful-of-samples"]),
        ({"error_rise": [0.0, 0.0, 0.003, 0.0]}, []),
        ({"error_rise": [0.0, -0.1, 0.0029, math.nan]}, ["raises-no-error"]),
        ({"error_rise": 0.0, "n": 2}, []),  # too early to tell
        ({"perturbed_loss": [2.4, 2.4, 2.3, 2.2]}, []),  # at its beginning, a run is at chance
        ({"perturbed_loss": [2.4, 2.4, 2.31, 2.2]}, ["beyond-range"]),
        ({"perturbed_loss": 2.4, "train_loss": [2.35] * 4, "loss_at": "w"}, []),  # 80 % wrong labels: it is near log K
        ({"perturbed_loss": 2.4, "train_loss": [2.25] * 4, "loss_at": "w"}, ["beyond-range"]),
        ({"same_class": [1.0, 1.0, 1.0, 0.9]}, []),
        ({"same_class": [0.5, 1.0, 0.99, 1.0]}, ["collapse"]),
        ({"train_loss": [1.0, 1.0, 1.0, math.nan], "same_class": 1.0}, ["divergence"]),
    ],
)
def test_where_a_signature_begins(numbers, expected):
    history = epochs(**numbers)
    assert [one.name for one in found(history)] == [one.name for one in signatures(history, "ok")] == expected


def test_a_window_is_judged_when_the_run_has_ended():
    shut = epochs(climbed=0.0, vanished=math.nan, ascent_samples=math.nan, error_rise=math.nan, perturbed_loss=math.nan)
    assert found(shut) == ()
    assert [one.name for one in signatures(shut, "ok")] == ["never-opened"]
    plain = [Epoch(**{**vars(epoch), "rho": 0.0}) for epoch in shut]
    assert signatures(plain, "ok") == (), "SGD has none to open"
    assert [one.name for one in signatures(plain, "collapsed")] == ["collapse"]


def test_an_older_versions_run_shows_nothing():
    old = [Epoch(i, 0.5, 0.9) for i in range(1, 5)]
    assert (found(old), signatures(old, "ok")) == ((), ())


def result(method, seed, score, history):
    return RunResult(method, seed, "ok", score, 0.9, 1, 1.0, 1.0, history=history)


def test_a_comparison_counts_the_runs_and_names_the_noise():
    small = [epochs(error_rise=0.0) if seed else epochs() for seed in range(4)]
    runs = [result("sgd", s, 0.9 + 0.001 * s, epochs(climbed=0.0)) for s in range(4)]
    runs += [result("sam", s, 0.9 + 0.002 * (-1) ** s, small[s]) for s in range(4)]
    runs += [result("asam", s, 0.95 + 0.001 * s + 0.0001 * (s % 2), epochs()) for s in range(4)]
    runs = [r if r.method != "sgd" else result("sgd", r.seed, r.test_score, epochs(rho=0.0)) for r in runs]
    outcome = compare_variant("", runs, "sgd")
    told = [(one.method, one.signature, one.runs, one.of) for one in outcome.signatures]
    assert told == [("sam", "raises-no-error", 3, 4), ("sam", "within-noise", 4, 4)]
    first, second = in_words(outcome.signatures)
    assert first.startswith("raises-no-error: ") and first.endswith("see docs/rho-range.md (sam, 3 of 4 runs).")
    assert "bisam rho-range" in first and "--seeds auto --difference 0.5" in second
    assert outcome.to_dict()["signatures"][0]["remedy"] == SIGNATURES["raises-no-error"].remedy
