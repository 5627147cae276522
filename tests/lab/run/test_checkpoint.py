"""Checkpoints are whole or refused, and a full or silent disk loses none."""

import resource
import zipfile
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from bisam_lab.run.checkpoint import CheckpointError, Checkpoints, read, write


@contextmanager
def files_no_larger_than(size):
    """A disk that is full after so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


def test_nothing_to_go_on_from(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": torch.arange(10.0)})
    with files_no_larger_than(20_000), pytest.raises(OSError, match=r"last\.pt cannot be written.*File too large"):
        checkpoints.save({"x": torch.arange(100_000.0)})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    found = checkpoints.load()
    assert found is not None
    assert len(found["x"]) == 10


def test_what_kills_leave_in_mid_write_does_not_pile_up(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": 1})
    for name in (".last.123", ".last.124", ".best.123"):
        (tmp_path / name).write_bytes(b"half")
    assert checkpoints.load()["x"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_newer_checkpoint_is_refused_and_stays(tmp_path):
    write(tmp_path / "last.pt", {"version": 99})
    with pytest.raises(CheckpointError, match="update it"):
        Checkpoints(tmp_path).load()
    assert (tmp_path / "last.pt").exists()


def test_a_disk_that_does_not_answer_sets_nothing_aside(tmp_path, monkeypatch):
    Checkpoints(tmp_path).save({"x": 1})

    def fails(*args, **kwargs):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", fails)
        with pytest.raises(OSError, match="Input/output"):
            Checkpoints(tmp_path).load()
    assert Checkpoints(tmp_path).load()["x"] == 1
