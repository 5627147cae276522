"""Trials whose seeds several processes train together: what one process finds, pruned, stopped and resumed."""

import signal

import pytest

from ..parallel.test_crew import members, processes
from ..test_cli import bisam, start, wait_for
from .small import table

pytestmark = pytest.mark.slow
TUNING = [
    *("tune", "digits", "--method", "sam", "--seeds", "1", "--jobs", "1", "--out", "t"),
    *("data.train_size=96", "data.validation_size=50", "model.options.width=8", "model.options.norm=group"),
    *("train.batch_size=32", "train.epochs=4", "engine.precision=64-true", "engine.accelerator=cpu"),
]
TWO = ["engine.devices=2", "sharpness.sync_ascent=true"]


def rows(folder):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table(folder)]


def test_two_processes_find_what_one_finds(tmp_path):
    """Settings, scores, which of them are pruned, and some that diverge."""
    found = []
    for name, more in {"one": [], "two": TWO}.items():
        (tmp_path / name).mkdir()
        space = ["--space", "lr=1e-5:1e8:log"]
        done = bisam(*TUNING, "--trials", "10", *space, *more, cwd=tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(rows(tmp_path / name / "t"))
    assert found[0] == found[1]
    assert {row["state"] for row in found[0]} == {"complete", "pruned"}


def test_ctrl_c_saves_a_trial_and_the_same_command_goes_on(tmp_path):
    command = [*TUNING, *TWO, "--trials", "1", "train.epochs=40"]
    driver = start(*command, cwd=tmp_path)
    journal = tmp_path / "t" / "optuna.log"
    wait_for(lambda: journal.exists() and '"intermediate_value"' in journal.read_text())
    there = members(driver.pid)
    assert len(there) == 2
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 130, output
    assert not set(there) & set(processes("")), "processes are left"
    done = bisam(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["state"] for row in table(tmp_path / "t")] == ["fail", "complete"]  # put back, and gone on with
