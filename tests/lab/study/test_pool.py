"""The runs of a study in parallel processes."""

import os
import signal
from queue import Queue

import pytest
from filelock import FileLock

from bisam_lab.parallel import workers
from bisam_lab.parallel.events import EpochDone, JobEnded
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.checkpoint import read
from bisam_lab.run.result import Run
from bisam_lab.study import pool
from bisam_lab.study.files import read_result

from ..run.runs import logged
from ..test_cli import TINY, start, wait_for


def test_sigterm_to_the_whole_group_saves(tmp_path):
    """Schedulers tell every process of a job, the server that the runs are forked from among them."""
    args = ["compare", "--methods", "sgd,sam", "--seeds", "1", "--jobs", "2", "--out", "s", *TINY, "train.epochs=9999"]
    process = start(*args, "model.options.width=32", cwd=tmp_path)
    runs = [tmp_path / "s" / "runs" / method / "seed-0" for method in ("sgd", "sam")]
    wait_for(lambda: all((run / "csv" / "metrics.csv").exists() for run in runs))
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 143, output
    for run in runs:
        assert not list((run / "checkpoints").glob(".*")), "killed in the middle of a write"
        assert len(read(run / "checkpoints" / "last.pt")["history"]) == len(logged(run))


def test_a_run_reports_its_epochs_and_how_it_ended(tmp_path, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(workers, "_queue", queue, raising=False)
    recipe, run = load("digits", [*TINY, "methods=[sgd]", "seeds=1"]), Run("", 0, "sgd")
    tmp_path.joinpath("a").mkdir()
    with FileLock(tmp_path / "a" / ".lock"):
        busy = pool._run(recipe, run, tmp_path / "a", None, 30.0)
    assert busy.elsewhere
    ended = pool._run(recipe, run, tmp_path / "a", None, 30.0)
    assert ended == JobEnded("sgd seed 0", read_result(tmp_path / "a", run))
    epochs = ended.result.history
    assert list(queue.queue) == [EpochDone("sgd seed 0", e.epoch, 2, e.validation_score) for e in epochs]
    monkeypatch.setattr(workers, "_stopping", True)
    assert pool._run(recipe, Run("", 1, "sgd"), tmp_path / "b", None, 30.0).error == "its process was told to stop"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (RecipeError("no such data"), "no such data"),
        (MemoryError("no room"), "MemoryError: no room"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_what_goes_wrong_in_a_run_is_its_end_alone(raised, said, tmp_path, monkeypatch):
    def failing(*args, **kwargs):
        raise raised

    monkeypatch.setattr("bisam_lab.study.cell.run_cell", failing)
    ended = pool._run(load("digits", TINY), Run("", 0, "sgd"), tmp_path, None, 30.0)
    assert ended == JobEnded("sgd seed 0", error=said)
