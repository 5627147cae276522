"""Checkpoints of shards, here those of one process alone: whole or not at all, and read without running code."""

import os
import pickle

import pytest
import torch
from torch import nn

from bisam_lab.recipe.engine import EngineRecipe
from bisam_lab.run.checkpoint import CheckpointError
from bisam_lab.run.fabric import build_fabric
from bisam_lab.run.sharded_checkpoint import ShardedCheckpoints
from bisam_lab.run.sharding import blocks
from bisam_lab.run.team import Team


class Saved:
    """A network after ``steps`` steps, and its checkpoints in a folder."""

    def __init__(self, folder, steps=0):
        torch.manual_seed(0)
        self.notes = []
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.opt = torch.optim.AdamW(self.model.parameters())
        self.kept = ShardedCheckpoints(folder, Team(build_fabric(EngineRecipe(accelerator="cpu"))), self.notes.append)
        for _ in range(steps):
            self.step()

    def step(self):
        self.model(torch.randn(5, 3)).square().sum().backward()
        self.opt.step()

    def save(self, epoch):
        self.kept.save(self.model, self.opt, None, {"epoch": epoch})

    def load(self):
        path, rest = self.kept.load()
        chosen = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.kept.restore(path, rest, self.model, self.opt, chosen)
        return rest["epoch"]


def test_it_is_loaded_to_the_bit(tmp_path):
    one = Saved(tmp_path, steps=2)
    one.save(7)
    other = Saved(tmp_path)
    assert other.load() == 7
    for _ in range(2):
        assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())
        for saved in (one, other):  # and so is the next step
            torch.manual_seed(1)
            saved.opt.zero_grad()
            saved.step()


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_a_damaged_one_is_set_aside_and_the_one_before_it_used(tmp_path, damage):
    one = Saved(tmp_path, steps=1)
    one.save(1)
    one.save(2)
    (shards,) = (tmp_path / "last.dcp").glob("*.distcp")
    data = bytearray(shards.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        shards.unlink()
    else:
        shards.write_bytes(data if damage == "flip" else data[:99])
    assert one.load() == 1
    assert (tmp_path / "last.unreadable").is_dir()
    assert "is damaged" in one.notes[0]
    assert "an earlier one is used" in one.notes[0]


def test_nothing_is_there(tmp_path):
    assert Saved(tmp_path).kept.load() is None


def test_an_index_that_would_run_code_is_refused(tmp_path):
    one = Saved(tmp_path, steps=1)
    one.save(1)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "last.dcp" / ".metadata").write_bytes(pickle.dumps(Evil()))
    path, rest = tmp_path / "last.dcp", {"state": {}, "groups": [], "chosen": False}
    with pytest.raises(CheckpointError, match="index is damaged"):
        one.kept.restore(path, rest, one.model, one.opt, {})
    assert not (tmp_path / "ran").exists()


def test_blocks_are_the_members_of_the_outermost_lists():
    layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(2, 2), nn.Sequential(nn.Conv2d(1, 1, 1), layers)

    net = Net()
    assert list(blocks(net)) == [net.body[0], layers[0][0], layers[1][0]]
