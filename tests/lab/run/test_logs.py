"""Weights & Biases, offline."""

from tests.lab.run.runs import TINY
from tests.lab.test_cli import ENV, bisam


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
