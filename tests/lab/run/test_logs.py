"""Weights & Biases, offline."""

import pytest
from filelock import FileLock

from tests.lab.run.runs import TINY
from tests.lab.test_cli import ENV, bisam


@pytest.mark.slow
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


def test_a_run_that_another_process_trains_is_not_logged_twice(tmp_path, monkeypatch):
    """Weights & Biases was opened before the run's lock: two processes then wrote to one W&B run."""
    monkeypatch.setitem(ENV, "WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        done = bisam("train", "digits", *TINY, "--method", "sgd", "--wandb", "mine", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "run" / "wandb").exists()
