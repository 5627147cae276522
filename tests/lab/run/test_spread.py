"""Two real processes train one run together: what they leave is what one process leaves that sees the whole batches."""

import ast
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from bisam_lab.recipe import load
from bisam_lab.run.checkpoint import read
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell
from tests.lab.run import pair
from tests.lab.run.runs import StopAfter
from tests.lab.test_cli import BISAM, ENV, wait_for

PYTHON = Path(sys.executable).parent
ARGS = ["train", "digits", "--method", pair.LONG[0], "--checkpoint-every", "0", "--out", "run", *pair.LONG[1]]

#: Relative errors that rounding makes in ten steps: the engine rounds the outputs to single precision in any case.
CLOSE = {"engine.precision=64-true": 1e-5}
#: Numbers of an epoch that both have; of an averaged ascent nobody knows the effective samples.
NUMBERS = ("train_loss", "validation_score", "passes", "gradient_norm", "eps_norm", "train_score", "same_class")
CLIMBS = ("climbed", "vanished", "error_rise", "perturbed_loss")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name, kind in pair.BEGUN.items():
        with pytest.raises(Stopped):
            run_cell(single(kind), Run("", 0, kind[0]), folder / name, observer=StopAfter(5), keep=True)
    processes = pair.start(folder)
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder


def single(kind):
    """The recipe for one process."""
    return load("digits", [*kind[1], f"methods=[{kind[0]}]", "engine.devices=1", "engine.strategy=auto"])


@functools.cache
def alone(kind, method=None):
    """What one process comes to: result, and weights at the end."""
    method = method or kind[0]
    with tempfile.TemporaryDirectory() as folder:
        result = run_cell(single((method, kind[1])), Run("", 0, method), Path(folder), keep=True)
        return result.to_dict(), read(Path(folder) / "checkpoints" / "last.pt")["model"]


def weights(folder, name="best"):
    return read(folder / "checkpoints" / f"{name}.pt")["model"]


def check_equal(folder, kind, method=None):
    """The run in the folder is that of one process, to rounding."""
    tolerance = next((CLOSE[field] for field in kind[1] if field in CLOSE), 1e-3)
    mine, theirs = json.loads((folder / "result.json").read_text()), alone(kind, method)[0]
    assert mine["test_score"] == theirs["test_score"]
    assert mine["parameters"] == theirs["parameters"]
    assert mine["selected_epoch"] == theirs["selected_epoch"]
    assert mine["environment"]["processes"] == 2
    assert len(mine["history"]) == len(theirs["history"]) >= 2
    for ours, its in zip(mine["history"], theirs["history"], strict=True):
        for name in (*NUMBERS, *(CLIMBS if method is None else ())):
            expected = None if its[name] is None else pytest.approx(its[name], rel=tolerance, abs=1e-7)
            assert ours[name] == expected, name


@pytest.mark.parametrize("name", [*pair.SAME, *pair.BEGUN])
def test_two_processes_equal_one(two, name):
    kind = (pair.SAME | pair.BEGUN)[name]
    check_equal(two / name, kind)
    assert ast.literal_eval((two / f"{name}.0").read_text()) == ast.literal_eval((two / f"{name}.1").read_text())


def test_workers_that_climb_alone_are_micro_batches(two):
    """m-sharpness: what mSAM with as many micro-batches does in one process, and SAM does not."""
    check_equal(two / "ddp-local", pair.LOCAL, "msam@m=2")
    last, shared = (weights(folder, "last") for folder in (two / "ddp-local", two / "ddp-sam"))
    assert not all(torch.allclose(last[key], shared[key], rtol=1e-3) for key in last)
    theirs = alone(pair.LOCAL, "msam@m=2")[1]
    assert all(torch.allclose(last[key], theirs[key], rtol=1e-5, atol=1e-7) for key in last)


def test_exported_weights_are_whole(two):
    whole = weights(two / "fsdp-sam")
    assert {key: value.shape for key, value in whole.items()} == {
        key: value.shape for key, value in alone(pair.SAME["fsdp-sam"])[1].items()
    }
    assert all(type(value) is torch.Tensor for value in whole.values())


def test_batch_norm_keeps_the_first_ones_statistics(two):
    last = weights(two / "ddp-norms", "last")
    assert any("running_mean" in key for key in last)
    first, second = ((two / f"ddp-norms.{rank}").read_text() for rank in (0, 1))
    assert first == second


def test_it_is_said_where_another_number_is_another_training(two):
    observer = StopAfter(1)
    with pytest.raises(Stopped):
        run_cell(single(pair.LOCAL), Run("", 0, "sam"), two / "kept-ddp", keep=True, observer=observer)
    assert any(
        note.endswith("for each climbs the gradient of its own part of a batch (m-sharpness)")
        for note in observer.notes
    )


@pytest.mark.parametrize("name", pair.STOPPED)
def test_stopped_by_one_and_resumed_to_the_same_bits(two, name):
    whole = {"ddp": "ddp-local", "fsdp": "fsdp-bisam", "ddp-noise": "ddp-sam"}[name]
    there, resumed = weights(two / whole), weights(two / f"stopped-{name}")
    assert all(torch.equal(there[key], resumed[key]) for key in there)
    assert there.keys() == resumed.keys()
    results = [json.loads((two / folder / "result.json").read_text()) for folder in (whole, f"stopped-{name}")]
    one, other = ([{k: v for k, v in e.items() if k != "seconds"} for e in result["history"]] for result in results)
    assert one == other


def test_one_process_goes_on_from_two(two, tmp_path):
    for name, means in {"ddp-noise": "the same but for rounding", "fsdp": "the same but for rounding"}.items():
        kind = pair.STOPPED[name]
        observer = StopAfter(10**9)
        result = run_cell(single(kind), Run("", 0, kind[0]), two / f"kept-{name}", keep=True, observer=observer)
        assert any("goes on from epoch 2, after 2 of its steps" in note for note in observer.notes), observer.notes
        assert any(f"saved by 2 processes, and goes on in 1: {means}" in note for note in observer.notes), (
            observer.notes
        )
        for ours, its in zip(result.to_dict()["history"], alone(kind)[0]["history"], strict=True):
            assert ours["train_loss"] == pytest.approx(its["train_loss"], rel=1e-4)
            assert ours["gradient_norm"] == pytest.approx(its["gradient_norm"], rel=1e-3)


def start(*command, cwd, **env):
    env = {**ENV, "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env=env, start_new_session=True
    )


def rank_of(folder, number):
    """The process of that rank that trains in the folder, found by its environment; None before it has begun."""
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if (one / "cwd").resolve() == folder and f"\0RANK={number}\0".encode() in (one / "environ").read_bytes():
                return int(one.name)
        except OSError:
            continue
    return None


def steps_in(folder):
    """Steps that are saved; 0 while nothing is there, or is just being replaced."""
    try:
        state = read(folder / "run" / "checkpoints" / "last.pt")
    except (OSError, ValueError):
        return 0
    return 3 * len(state["history"]) + (0 if state["losses"] is None else len(state["losses"]))


def test_the_command_is_killed_and_goes_on_under_torchrun_to_the_same_bits(two, tmp_path):
    run = start(BISAM, *ARGS, cwd=tmp_path)
    wait_for(lambda: steps_in(tmp_path) > 2)
    os.kill(rank_of(tmp_path, 1), signal.SIGKILL)
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 1
    assert "process 1 of the run was killed (SIGKILL" in said, said
    assert "the same command goes on" in " ".join(said.split()), said
    assert "Traceback" not in said, said

    before = steps_in(tmp_path)
    torchrun = (PYTHON / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "bisam_lab")
    run = start(*torchrun, *ARGS, cwd=tmp_path)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 0, said
    epochs, steps = map(int, re.search(r"goes on from epoch (\d+), after (\d) of its steps", said).groups())
    assert 3 * (epochs - 1) + steps == before
    assert said.count("accuracy: test") == 1, said
    ours, theirs = (read(folder / "checkpoints" / "best.pt") for folder in (tmp_path / "run", two / "long"))
    assert ours["epoch"] == theirs["epoch"]
    assert all(torch.equal(value, ours["model"][key]) for key, value in theirs["model"].items())
