"""A whole run, as the command and as a function: killed at any moment it goes on to the same bits."""

import json
import os
import signal
import subprocess

import pytest
import torch
from filelock import FileLock

from bisam_lab.data import InMemory
from bisam_lab.recipe import load
from bisam_lab.run.checkpoint import CheckpointError, read
from bisam_lab.run.observer import Stopped
from bisam_lab.run.train import train
from tests.lab.run.runs import TINY, StopAfter, history, logged, same, weights
from tests.lab.test_cli import ENV, bisam, in_process, start, wait_for
from tests.warm import warm

RECIPE = [*TINY, "train.epochs=4"]
SHORT = (*TINY, "train.epochs=2", "model.options.width=4")

#: Runs `bisam train` with one call of one function replaced by what a kill at that moment leaves behind.
KILLED = """
import io, os, signal, sys
import torch
import bisam_lab, bisam_lab.run.checkpoint as checkpoint, bisam_lab.run.steps as steps, bisam_lab.run.train as train

where, count = sys.argv.pop(1), int(sys.argv.pop(1))

def die(call):
    def counted(*args, **kwargs):
        global count
        count -= 1
        if count == 0:
            if where == "write":  # half of the file is on the disk
                whole = io.BytesIO()
                call(args[0], whole)
                args[1].write(whole.getvalue()[: whole.tell() // 2])
                args[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted

owner, name = {
    "step": (steps.Steps, "_backward"),
    "write": (torch, "save"),
    "rename": (checkpoint.os, "replace"),
    "end": (train, "_result"),
}[where]
setattr(owner, name, die(getattr(owner, name)))
bisam_lab.main()
"""


def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path):
    """One run, killed in a step, in the middle of a write, between two renames, and before its result."""
    args = ["train", "digits", *RECIPE, "--method", "bisam-log", "--seed", "1", "--checkpoint-every", "0"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    reference = bisam(*args, "--out", str(whole), cwd=tmp_path)
    assert reference.returncode == 0, reference.stderr
    seen = []
    for where, count in (("step", 2), ("write", 3), ("step", 6), ("rename", 6), ("end", 1)):
        done = subprocess.run(
            [warm(), "-c", KILLED, where, str(count), *args, "--out", str(folder)],
            capture_output=True,
            text=True,
            env=ENV,
            timeout=240,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        assert not (folder / "result.json").exists()
        seen.append("goes on from" in done.stdout)
    assert seen == [False, True, True, True, True]
    last = bisam(*args, "--out", str(folder), cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    for name in ("last", "best"):
        assert same(weights(whole)[name], weights(folder)[name])
    a, b = (json.loads((out / "result.json").read_text()) for out in (whole, folder))
    assert history(a) == history(b)
    assert (a["test_score"], a["selected_epoch"], a["status"]) == (b["test_score"], b["selected_epoch"], b["status"])
    first, second = (logged(out) for out in (whole, folder))
    assert first == second
    assert [row["step"] for row in first if row["train_loss"]] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_a_signal_saves_and_leaves_with_its_code(number, code, tmp_path):
    args = ["train", "digits", *TINY, "train.epochs=100000", "--method", "sam", "--out", "run"]
    process = start(*args, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "run" / "csv" / "metrics.csv").exists())
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    state = read(tmp_path / "run" / "checkpoints" / "last.pt")
    assert len(state["history"]) == len(logged(tmp_path / "run")) > 0, "an epoch was lost"


def test_json_errors_and_a_finished_run(tmp_path, capsys, monkeypatch):
    args = ["train", "digits", *TINY, "train.epochs=1", "--method", "sgd", "--out", str(tmp_path / "run"), "--json"]
    done = bisam(*args, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["method"] == "sgd"
    assert told["environment"]["packages"]["torch"] == torch.__version__
    assert told["parameters"] == sum(
        v.numel() for k, v in weights(tmp_path / "run")["last"].items() if "running" not in k and "num_" not in k
    )
    (tmp_path / "run" / "result.json").write_text("{")
    code, said = in_process(capsys, monkeypatch, *args)
    assert code == 2
    assert "cannot be read" in said
    code, said = in_process(capsys, monkeypatch, "train", "digits", "--variant", "x")
    assert code == 2
    assert "variant 'x'" in said


def test_one_process_at_a_time(tmp_path, capsys, monkeypatch):

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        code, said = in_process(
            capsys, monkeypatch, "train", "--method", "sam", "--out", str(tmp_path / "run"), *RECIPE
        )
    assert code == 2
    assert "another process is training this run" in said
    assert os.listdir(tmp_path / "run" / "checkpoints") == []


def test_another_runs_checkpoint_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(load("digits", RECIPE), "sam", 0, folder=tmp_path, observer=StopAfter(1))
    with pytest.raises(CheckpointError, match=r"seed=0 there, 1 now.*choose another folder"):
        train(load("digits", RECIPE), "sam", 1, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"method=.sam. there, .sgd. now; train.lr=0.1 there, 0.2 now"):
        train(load("digits", [*RECIPE, "train.lr=0.2"]), "sgd", 0, folder=tmp_path)


def test_epoch_is_chosen_on_validation():
    recipe = load("digits", [*SHORT, "train.epochs=6"])
    best, last = (
        train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"select": s})}), "sgd", 0)
        for s in ("best", "last")
    )
    accuracies = [epoch.validation_score for epoch in best.history]
    assert best.selected_epoch == 1 + accuracies.index(max(accuracies))
    assert best.validation_score == max(accuracies)
    assert last.selected_epoch == 6
    assert last.validation_score == accuracies[-1]


def test_the_test_set_is_read_once(monkeypatch):
    sizes, whole_of = [], InMemory.in_order
    monkeypatch.setattr(
        InMemory, "in_order", lambda source, *size: sizes.append(len(source)) or whole_of(source, *size)
    )
    train(load("digits", SHORT), "sgd", 0)
    assert sizes == [50, 50, 50, 597]  # once for its shape, and after each epoch; the test set at the end


def test_a_collapsed_run_is_called_so():
    result = train(load("digits", [*SHORT, "sharpness.rho=1000"]), "sam", 0)
    assert result.status == "collapsed"


@pytest.mark.filterwarnings("ignore")
def test_a_diverged_run_is_called_so_and_stops():
    result = train(load("digits", [*SHORT, "train.lr=1e30", "train.epochs=5"]), "sgd", 0)
    assert result.status == "diverged"
    assert len(result.history) < 5
    assert result.selected_epoch == len(result.history)
    assert result.test_score < 0.2


def test_mixed_precision_trains():
    result = train(load("digits", [*SHORT, "engine.precision=bf16-mixed", "train.epochs=4"]), "bisam-log", 0)
    assert result.status in ("ok", "collapsed")
    assert all(epoch.train_loss < 5 for epoch in result.history)


def test_early_stopping_is_off_and_can_be_had():
    patient, hasty = (
        train(load("digits", [*TINY, "train.epochs=12", f"train.patience={p}", "train.lr=1e-9"]), "sgd", 0)
        for p in ("null", "2")
    )
    assert len(patient.history) == 12
    scores = [e.validation_score for e in hasty.history]
    assert len(hasty.history) == 3 + scores.index(max(scores)) < 12
