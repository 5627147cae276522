"""One process trains a run, whatever the file system does with locks."""

import json
import os
import threading
import time

import pytest
from filelock import FileLock

from bisam_lab.recipe import load
from bisam_lab.run.observer import Observer
from bisam_lab.run.result import Run
from bisam_lab.study import hold as holding
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import read_result, write_result
from bisam_lab.study.hold import FRESH, Busy, hold, is_held

from ..run.runs import TINY


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that knows no locks, as filelock meets it."""

    def acquire(*args, **kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)


def of_another_node(folder, age=0.0):
    path = folder / ".holder"
    path.write_text(json.dumps({"node": "elsewhere", "process": 1, "name": "theirs"}))
    os.utime(path, (time.time() - age,) * 2)


def test_a_run_is_held_once_and_then_free(tmp_path):
    assert not is_held(tmp_path / "none")
    with hold(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(Busy), hold(tmp_path):
            pass
    assert not is_held(tmp_path)
    assert not (tmp_path / ".holder").exists()


def test_without_locks_the_holder_decides(tmp_path, without_locks):
    with hold(tmp_path):
        with pytest.raises(Busy), hold(tmp_path):
            pass
        os.utime(tmp_path / ".holder", (time.time() - FRESH - 1,) * 2)  # its process is dead, or cut off
        with hold(tmp_path) as second:
            second.check()


def test_a_lock_that_another_machine_does_not_see_is_not_enough(tmp_path):
    of_another_node(tmp_path)
    with pytest.raises(Busy), hold(tmp_path):
        pass
    of_another_node(tmp_path, age=FRESH + 1)
    with hold(tmp_path) as mine:
        mine.check()


def test_a_holder_of_this_node_that_died_holds_nothing(tmp_path):
    """Its lock is free, and on one machine that is certain: nobody waits for the file to grow old."""
    with hold(tmp_path):
        left = (tmp_path / ".holder").read_text()
    (tmp_path / ".holder").write_text(left)
    with hold(tmp_path) as mine:
        mine.check()


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"node": 3}'])
def test_a_damaged_name_is_nobodys(tmp_path, damaged):
    (tmp_path / ".holder").write_text(damaged)
    os.utime(tmp_path / ".holder", (time.time() - FRESH - 1,) * 2)
    with hold(tmp_path) as mine:
        mine.check()


def test_patience_waits_for_the_end_of_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "LOOK", 0.05)
    first = FileLock(tmp_path / ".lock", thread_local=False)
    first.acquire()
    threading.Timer(0.3, first.release).start()
    with hold(tmp_path, patience=60.0) as mine:
        mine.check()


def test_the_file_stays_fresh_and_a_run_that_was_taken_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.02)
    path = tmp_path / ".holder"
    with hold(tmp_path) as mine:
        os.utime(path, (0, 0))
        end = time.monotonic() + 30
        while path.stat().st_mtime == 0:
            assert time.monotonic() < end
        of_another_node(tmp_path)
        while not mine.lost:
            assert time.monotonic() < end
        with pytest.raises(Busy):
            mine.check()
    assert json.loads(path.read_text())["node"] == "elsewhere", "the other one's name is not ours to delete"


class _Thief(Observer):
    """Lets another machine take the run after its first step."""

    def __init__(self, folder):
        self.folder = folder

    def step(self, epoch, done, total):
        of_another_node(self.folder)
        time.sleep(0.1)


def test_a_run_that_another_machine_takes_is_not_trained_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.02)
    recipe = load("digits", [*TINY, "methods=[sgd]", "train.epochs=200"])
    with pytest.raises(Busy):
        run_cell(recipe, Run("", 0, "sgd"), tmp_path, observer=_Thief(tmp_path))
    assert read_result(tmp_path, Run("", 0, "sgd")) is None


@pytest.mark.parametrize("links", [True, False])
def test_the_first_result_stays(tmp_path, monkeypatch, links):
    if not links:

        def link(*args):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    recipe, run = load("digits", [*TINY, "methods=[sgd]", "train.epochs=1"]), Run("", 0, "sgd")
    first = run_cell(recipe, run, tmp_path)
    other = first.__class__(**{**vars(first), "test_score": 0.5})
    assert write_result(tmp_path, other, first=True).test_score == first.test_score
    assert read_result(tmp_path, run).test_score == first.test_score
    assert not list(tmp_path.glob(".result*"))
    (tmp_path / "result.json").unlink()
    assert write_result(tmp_path, other, first=True).test_score == 0.5
