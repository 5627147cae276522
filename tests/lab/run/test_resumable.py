"""A training that was stopped goes on to the same bits, whatever the method, the precision and the moment."""

import pytest
import torch

from bisam_lab.recipe import load
from bisam_lab.run import resumable
from bisam_lab.run.checkpoint import CheckpointError, read, write
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.result import plain
from bisam_lab.run.train import train
from tests.lab import test_cli
from tests.lab.run.runs import TINY, StopAfter, same, weights

TWO = test_cli.TINY


class DieIn(Observer):
    """Ends the run without any saving, as a kill does, at the start of an epoch."""

    def __init__(self, number):
        self.number, self.notes = number, []

    def epoch(self, epoch):
        if epoch.epoch == self.number:
            raise ConnectionError

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
def test_stopped_in_mid_epoch_every_method_goes_on_exactly(method, given, tmp_path):
    recipe = load("digits", [*TINY, "train.epochs=3", f"methods=[{method}]", *given])
    whole = train(recipe, method, 2, folder=tmp_path / "a")
    for steps in (1, 3, 4):  # 3 + 1 ends an epoch of three steps before its validation
        with pytest.raises(Stopped):
            train(recipe, method, 2, folder=tmp_path / "b", observer=StopAfter(steps))
    resumed = train(recipe, method, 2, folder=tmp_path / "b")
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])
    assert [plain(vars(e)) | {"seconds": 0} for e in whole.history] == [
        plain(vars(e)) | {"seconds": 0} for e in resumed.history
    ]
    assert whole.test_score == resumed.test_score


def test_stopped_in_validation_it_validates_anew(tmp_path):
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


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "16-mixed"])
def test_every_precision_goes_on_exactly(precision, tmp_path):
    recipe = load("digits", [*TWO, f"engine.precision={precision}", "methods=[bisam-log]"])
    whole = train(recipe, "bisam-log", 0, folder=tmp_path / "a")
    for steps in (1, 2):
        with pytest.raises(Stopped):
            train(recipe, "bisam-log", 0, folder=tmp_path / "b", observer=StopAfter(steps))
    resumed = train(recipe, "bisam-log", 0, folder=tmp_path / "b")
    assert [e.train_loss for e in whole.history] == [e.train_loss for e in resumed.history]
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])


def test_epochs_shorter_than_the_time_between_checkpoints_are_saved(tmp_path, monkeypatch):
    """Each epoch once began the count anew, so that a run of short epochs had nothing to go on from."""
    now = iter(range(10**6))
    monkeypatch.setattr(resumable.time, "perf_counter", lambda: float(next(now)))
    recipe = load("digits", [*TWO, "train.epochs=30"])
    with pytest.raises(ConnectionError):
        train(recipe, "sgd", 0, folder=tmp_path, observer=DieIn(30), every=20.0)
    assert len(read(tmp_path / "checkpoints" / "last.pt")["history"]) >= 20


def test_more_methods_and_seeds_do_not_make_another_run(tmp_path):
    recipe = load("digits", [*TWO, "seeds=1", "methods=[sam]"])
    with pytest.raises(Stopped):
        train(recipe, "sam", 0, folder=tmp_path, observer=StopAfter(3))
    more = load("digits", [*TWO, "seeds=7", "methods=[sgd,sam]", "description=longer"])
    watcher = StopAfter(-1)
    assert train(more, "sam", 0, folder=tmp_path, observer=watcher).status
    assert watcher.notes == ["goes on from epoch 2, after 1 of its steps"]


def test_the_best_weights_are_no_checkpoint_to_go_on_from(tmp_path):
    recipe, place = load("digits", TWO), tmp_path / "checkpoints"
    train(recipe, "sgd", 0, folder=tmp_path)
    (place / "best.pt").rename(place / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt.*weights alone"):
        train(recipe, "sgd", 0, folder=tmp_path)


def test_a_state_that_does_not_fit_the_network_is_one_sentence(tmp_path):
    recipe, last = load("digits", TWO), tmp_path / "checkpoints" / "last.pt"
    with pytest.raises(Stopped):
        train(recipe, "sgd", 0, folder=tmp_path, observer=StopAfter(1))
    state = read(last)
    write(last, state | {"model": {"weight": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"last\.pt: .*does not fit.*choose another folder"):
        train(recipe, "sgd", 0, folder=tmp_path)
