"""A training is saved and restored: what is saved when, and what is refused."""

import pytest
import torch

from bisam_lab import training as training_module
from bisam_lab.checkpoint import CheckpointError, read, write
from bisam_lab.recipe import load
from bisam_lab.train import Observer, Stopped, train

from .test_cli import TINY
from .test_train import StopAfter, same, weights


class DieIn(Observer):
    """Ends the run without any saving, as a kill does, at the start of an epoch."""

    def __init__(self, number):
        self.number, self.notes = number, []

    def epoch(self, epoch):
        if epoch.epoch == self.number:
            raise ConnectionError

    def note(self, text):
        self.notes.append(text)


def test_epochs_shorter_than_the_time_between_checkpoints_are_saved(tmp_path, monkeypatch):
    """Each epoch once began the count anew, so that a run of short epochs had nothing to go on from."""
    now = iter(range(10**6))
    monkeypatch.setattr(training_module.time, "perf_counter", lambda: float(next(now)))
    recipe = load("digits", [*TINY, "train.epochs=30"])
    with pytest.raises(ConnectionError):
        train(recipe, "sgd", 0, folder=tmp_path, observer=DieIn(30), every=20.0)
    assert len(read(tmp_path / "checkpoints" / "last.pt")["history"]) >= 20


def test_more_methods_and_seeds_do_not_make_another_run(tmp_path):
    recipe = load("digits", [*TINY, "seeds=1", "methods=[sam]"])
    with pytest.raises(Stopped):
        train(recipe, "sam", 0, folder=tmp_path, observer=StopAfter(3))
    more = load("digits", [*TINY, "seeds=7", "methods=[sgd,sam]", "description=longer"])
    watcher = StopAfter(-1)
    assert train(more, "sam", 0, folder=tmp_path, observer=watcher).status
    assert watcher.notes == ["goes on from epoch 2, after 1 of its steps"]


def test_the_best_weights_are_no_checkpoint_to_go_on_from(tmp_path):
    recipe, place = load("digits", TINY), tmp_path / "checkpoints"
    train(recipe, "sgd", 0, folder=tmp_path)
    (place / "best.pt").rename(place / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt.*weights alone"):
        train(recipe, "sgd", 0, folder=tmp_path)


def test_a_state_that_does_not_fit_the_network_is_one_sentence(tmp_path):
    recipe, last = load("digits", TINY), tmp_path / "checkpoints" / "last.pt"
    with pytest.raises(Stopped):
        train(recipe, "sgd", 0, folder=tmp_path, observer=StopAfter(1))
    state = read(last)
    write(last, state | {"model": {"weight": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"last\.pt: .*does not fit.*choose another folder"):
        train(recipe, "sgd", 0, folder=tmp_path)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "16-mixed"])
def test_every_precision_goes_on_exactly(precision, tmp_path):
    recipe = load("digits", [*TINY, f"engine.precision={precision}", "methods=[bisam-log]"])
    whole = train(recipe, "bisam-log", 0, folder=tmp_path / "a")
    for steps in (1, 2):
        with pytest.raises(Stopped):
            train(recipe, "bisam-log", 0, folder=tmp_path / "b", observer=StopAfter(steps))
    resumed = train(recipe, "bisam-log", 0, folder=tmp_path / "b")
    assert [e.train_loss for e in whole.history] == [e.train_loss for e in resumed.history]
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])
