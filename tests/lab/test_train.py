"""One run: killed at any moment it goes on to the same bits; checkpoints are whole or refused; SIGTERM saves."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from bisam_lab.data.examples import stream
from bisam_lab.recipe import load
from bisam_lab.run.checkpoint import CheckpointError, Checkpoints, read, write
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.train import train

from .test_cli import ENV, bisam, start, wait_for

TINY = ("data.train_size=96", "data.validation_size=50", "model.options.width=2", "train.batch_size=32")
RECIPE = [*TINY, "train.epochs=4"]

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


def weights(folder):
    return {name: read(folder / "checkpoints" / f"{name}.pt")["model"] for name in ("last", "best")}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True)) and a.keys() == b.keys()


def logged(folder):
    return list(csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines()))


def history(result):
    return [(e["train_loss"], e["validation_score"], e["learning_rate"]) for e in result["history"]]


def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path):
    """One run, killed in a step, in the middle of a write, between two renames, and before its result."""
    args = ["train", "digits", *RECIPE, "--method", "bisam-log", "--seed", "1", "--checkpoint-every", "0"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    reference = bisam(*args, "--out", str(whole), cwd=tmp_path)
    assert reference.returncode == 0, reference.stderr
    seen = []
    for where, count in (("step", 2), ("write", 3), ("step", 6), ("rename", 6), ("end", 1)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, where, str(count), *args, "--out", str(folder)],
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


class StopAfter(Observer):
    def __init__(self, steps):
        self.left, self.notes = steps, []

    def step(self, epoch, done, total):
        self.left -= 1
        self.stop = self.left == 0

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("bisam-tanh+asam", ["train.optimizer=adamw", "train.lr=0.01"]),
        ("looksam", ["train.clip=1", "train.warmup=0.2"]),
        ("friendlysam", ["train.schedule=step"]),
        ("gsam", ["data.augment=crop-flip"]),
        ("esam", ["train.select=last"]),
        ("ssam", []),
        ("bisam-log+aesam", ["train.schedule=linear"]),
    ],
)
def test_stopped_in_mid_epoch_every_method_goes_on_exactly(method, given, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    recipe = load("digits", [*TINY, "train.epochs=3", f"methods=[{method}]", *given])
    whole = train(recipe, method, 2, folder=tmp_path / "a")
    for steps in (1, 3, 4):  # 3 + 1 ends an epoch of three steps before its validation
        with pytest.raises(Stopped):
            train(recipe, method, 2, folder=tmp_path / "b", observer=StopAfter(steps))
    resumed = train(recipe, method, 2, folder=tmp_path / "b")
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])
    assert [vars(e) | {"seconds": 0} for e in whole.history] == [vars(e) | {"seconds": 0} for e in resumed.history]
    assert whole.test_score == resumed.test_score


def test_stopped_in_validation_it_validates_anew(tmp_path, monkeypatch):
    """SIGTERM may come while a large validation set is gone through, and the grace of a scheduler is short."""

    class StopWhenAsked(Observer):
        left = 3  # asked after each of three steps, and then before a batch of validation

        def stopping(self):
            self.left -= 1
            return self.left < 0

    recipe = load("digits", [*TINY, "train.epochs=2"])
    whole = train(recipe, "bisam-log", 0, folder=tmp_path / "a")
    with pytest.raises(Stopped):
        train(recipe, "bisam-log", 0, folder=tmp_path / "b", observer=(asked := StopWhenAsked()), every=1e9)
    state = read(tmp_path / "b" / "checkpoints" / "last.pt")
    assert (len(state["history"]), len(state["losses"]), asked.left) == (0, 3, -1)
    resumed = train(recipe, "bisam-log", 0, folder=tmp_path / "b")
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])
    assert [e.validation_score for e in whole.history] == [e.validation_score for e in resumed.history]


def test_the_place_alone_decides_what_is_random():
    draws = [torch.rand(3, generator=stream(*place)).tolist() for place in ((0, 1), (0, 1, 0), (1, 0), (0, 1))]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3


def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_used(tmp_path):
    recipe, folder = load("digits", [*TINY, "train.epochs=3"]), tmp_path / "run"
    whole = train(recipe, "sam", 0, folder=tmp_path / "whole")
    with pytest.raises(Stopped):
        train(recipe, "sam", 0, folder=folder, observer=StopAfter(5), every=0)
    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-200])
    watcher = StopAfter(-1)
    resumed = train(recipe, "sam", 0, folder=folder, observer=watcher)
    assert "no checkpoint, or only a part" in watcher.notes[0]
    assert watcher.notes[1] == "goes on from epoch 2, after 1 of its steps"
    assert (folder / "checkpoints" / "last.unreadable").exists()
    assert resumed.test_score == whole.test_score
    assert same(weights(tmp_path / "whole")["last"], weights(folder)["last"])


def test_a_checkpoint_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "a.pt"
    write(path, {"x": torch.arange(1000.0)})
    assert torch.equal(read(path)["x"], torch.arange(1000.0))
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (entry,) = [info for info in archive.infolist() if info.filename.endswith("data/0")]
    flipped = bytearray(good)
    flipped[entry.header_offset + 2000] ^= 1
    for content, words in (
        (good[: len(good) // 2], "only a part"),
        (b"", "only a part"),
        (bytes(flipped), "damaged"),
        (b"a thesis", "no checkpoint"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            read(path)
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match="not written by bisam"):
        read(path)
    torch.save(nn.Linear(1, 1), path)  # would run code
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read(path)
    write(path, {"version": 99})
    with pytest.raises(CheckpointError, match="update it"):
        read(path)


def test_another_runs_checkpoint_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(load("digits", RECIPE), "sam", 0, folder=tmp_path, observer=StopAfter(1))
    with pytest.raises(CheckpointError, match=r"seed=0 there, 1 now.*choose another folder"):
        train(load("digits", RECIPE), "sam", 1, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"method=.sam. there, .sgd. now; train.lr=0.1 there, 0.2 now"):
        train(load("digits", [*RECIPE, "train.lr=0.2"]), "sgd", 0, folder=tmp_path)


def test_nothing_to_go_on_from(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


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
    from .test_cli import in_process

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
    from filelock import FileLock

    from .test_cli import in_process

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        code, said = in_process(
            capsys, monkeypatch, "train", "--method", "sam", "--out", str(tmp_path / "run"), *RECIPE
        )
    assert code == 2
    assert "another process is training this run" in said
    assert os.listdir(tmp_path / "run" / "checkpoints") == []


def test_early_stopping_is_off_and_can_be_had():
    patient, hasty = (
        train(load("digits", [*TINY, "train.epochs=12", f"train.patience={p}", "train.lr=1e-9"]), "sgd", 0)
        for p in ("null", "2")
    )
    assert len(patient.history) == 12
    scores = [e.validation_score for e in hasty.history]
    assert len(hasty.history) == 3 + scores.index(max(scores)) < 12


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    """The real client, which writes to the disk instead of the network; a resumed run has the same id."""
    monkeypatch.setitem(ENV, "WANDB_MODE", "offline")
    args = ["train", "digits", *TINY, "train.epochs=2", "--method", "sgd", "--wandb", "mine", "--out", "run"]
    assert bisam(*args, cwd=tmp_path).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    assert bisam(*args, cwd=tmp_path).returncode == 0
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1
    written = b"".join(file.read_bytes() for file in files)
    assert all(word in written for word in (b"validation_score", b"test_score", b"train_loss"))


def test_the_time_left_of_a_run_resumed_at_an_epochs_end():
    from rich.console import Console

    from bisam_lab.cli.watch import Watch
    from bisam_lab.run.result import Epoch

    watch = Watch(3, Console(file=(out := io.StringIO()), width=200))
    watch.step(1, 8, 8)
    watch.epoch(Epoch(1, 1.0, 0.5))
    assert "left" not in out.getvalue()
    watch.step(2, 8, 8)
    watch.epoch(Epoch(2, 1.0, 0.5))
    assert "0 s left" in out.getvalue()
