"""The runs of a study in parallel processes."""

import errno
import math
import os
import re
import signal
import threading
from queue import Queue

import pytest
from filelock import FileLock

from bisam_lab.parallel import worker
from bisam_lab.parallel.engine import Engine
from bisam_lab.parallel.events import EpochDone, JobEnded, Note
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.checkpoint import read
from bisam_lab.run.result import Run
from bisam_lab.stack.trial import Trial
from bisam_lab.study import pool, work
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import read_result
from bisam_lab.study.folder import Study
from bisam_lab.study.work import Cell, How

from ..run.runs import logged
from ..test_cli import TINY, start, wait_for

HOW = How(None, 30.0)


@pytest.mark.slow
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


def test_a_full_disk_is_told_whatever_hides_it(tmp_path):
    """The loggers raise errors of their own, which name neither the disk nor a remedy."""
    full = OSError(errno.ENOSPC, "No space left on device")
    hidden, deeper = ValueError("you tried to log 2.4"), RuntimeError("PytorchStreamWriter failed")
    hidden.__cause__, deeper.__context__ = full, hidden
    for error in (full, hidden, deeper):
        assert work._reason(error, tmp_path) == f"{tmp_path}: no space is left on the disk: free some"
    assert work._reason(ValueError("no"), tmp_path) == "ValueError: no"


def test_a_thread_that_cannot_write_leaves_the_word_to_its_run(capsys):
    for error, told in ((OSError(errno.ENOSPC, "full"), False), (ValueError("wrong"), True)):
        worker._thread_failed(threading.ExceptHookArgs((type(error), error, None, None)))
        assert ("wrong" in capsys.readouterr().err) is told


def test_a_run_reports_its_epochs_and_how_it_ended(tmp_path, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(worker, "_channel", queue, raising=False)
    recipe, run = load("digits", [*TINY, "methods=[sgd]", "seeds=1"]), Run("", 0, "sgd")
    tmp_path.joinpath("a").mkdir()
    with FileLock(tmp_path / "a" / ".lock"):
        (busy,) = work.train_cells([Cell(recipe, run, tmp_path / "a")], HOW)
    assert busy.elsewhere
    (ended,) = work.train_cells([Cell(recipe, run, tmp_path / "a")], HOW)
    assert ended == JobEnded("sgd seed 0", read_result(tmp_path / "a", run))
    epochs = ended.result.history
    assert list(queue.queue) == [EpochDone("sgd seed 0", e.epoch, 2, e.validation_score) for e in epochs]
    monkeypatch.setattr(worker, "_stopping", True)
    (stopped,) = work.train_cells([Cell(recipe, Run("", 1, "sgd"), tmp_path / "b")], HOW)
    assert stopped.error == "its process was told to stop"


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

    monkeypatch.setattr("bisam_lab.study.cell.cell", failing)
    ended = work.train_cells([Cell(load("digits", TINY), Run("", 0, "sgd"), tmp_path)], HOW)
    assert ended == [JobEnded("sgd seed 0", error=said)]


EXACT = [*TINY, "engine.precision=64-true"]


def _results(study):
    numbers = {}
    for run, result in study.results().items():
        numbers[run] = (result.test_score, result.selected_epoch, [e.validation_score for e in result.history])
    return numbers


def test_a_stacked_study_has_the_results_of_a_study_run_by_run(tmp_path):
    """In processes of their own, over two variants, one of which cannot be stacked."""
    cut = "variants={a: {}, b: {model.name: 'tests.lab.stack.networks:dropping', model.options: {}}}"
    recipe = load("digits", [*EXACT, "methods=[sgd,sam]", "seeds=3", cut])
    told, found = {}, {}
    for stack in ("on", "off"):
        study = Study(tmp_path / stack, recipe)
        told[stack] = list(pool.run_study(study, Engine(jobs=2), stack=stack))
        found[stack] = _results(study)
    assert len(found["on"]) == 12
    assert found["on"] == found["off"]
    notes = [event for event in told["on"] if isinstance(event, Note)]
    assert [note.job for note in notes] == ["a", "b"]
    assert re.fullmatch(r"trained 3 at a time: one pass of them takes \d+\.\d\d of the time one by one", notes[0].text)
    assert "one by one: its network draws random numbers" in notes[1].text
    assert not [event for event in told["off"] if isinstance(event, Note)]
    assert sum(isinstance(event, JobEnded) for event in told["on"]) == 12
    stacked = {
        run.variant: result.environment.get("stack") for run, result in Study(tmp_path / "on", recipe).results().items()
    }
    assert stacked == {"a": 3, "b": None}
    assert list(pool.run_study(Study(tmp_path / "on", recipe), Engine(jobs=2), stack="on")) == []


def test_a_stack_that_was_stopped_goes_on_in_another_one(tmp_path, monkeypatch):
    """Runs that have ended stay; more seeds join those that have not."""
    recipe = load("digits", [*EXACT, "methods=[sgd,sam]", "seeds=2", "train.epochs=3"])
    study, sent = Study(tmp_path / "s", recipe), []

    def send(event):
        sent.append(event)
        if isinstance(event, EpochDone) and event == EpochDone("sgd seed 1", 3, 3, event.score):
            monkeypatch.setattr(worker, "_stopping", True)  # the sam runs have not been tested

    monkeypatch.setattr(work, "send", send)
    cells = [Cell(recipe, run, study.path(run)) for run in study.runs]
    ended = work.train_cells(cells, HOW)
    assert {e.job for e in ended if e.error} == {"sam seed 0", "sam seed 1"}
    assert {run.method for run in study.results()} == {"sgd"}
    monkeypatch.setattr(worker, "_stopping", False)
    monkeypatch.setattr(worker, "send", sent.append)
    more = load("digits", [*EXACT, "methods=[sgd,sam]", "seeds=3", "train.epochs=3"])
    study = Study(tmp_path / "s", more)
    done = study.results()
    cells = [Cell(more, run, study.path(run)) for run in study.runs if run not in done]
    assert len(cells) == 4
    assert all(e.result is not None for e in work.train_cells(cells, HOW))
    resumed = [event.text for event in sent if isinstance(event, Note)]
    assert len(resumed) == 2
    assert all(text.startswith("goes on from epoch 3, after ") for text in resumed)
    alone = Study(tmp_path / "alone", more)
    for run in alone.runs:
        run_cell(more, run, alone.path(run))
    assert _results(study) == _results(alone)


def test_what_is_not_faster_is_trained_one_by_one(tmp_path, monkeypatch):
    recipe = load("digits", [*EXACT, "methods=[sgd]", "seeds=4"])
    study = Study(tmp_path / "s", recipe)
    asked, answers, stacking = [], [], []

    class Asked:
        def ask(self, function, each):
            ((_recipe, _data_dir, size, slowest),) = each
            asked.append(size)
            assert (slowest == math.inf) == (stacking[-1] == "on")
            return [answers.pop(0)]

    def groups(stack, *trials):
        asked.clear()
        stacking.append(stack)
        answers[:] = trials
        found = pool._stacks(Asked(), study, study.runs, Engine(jobs=1), stack)
        notes = []
        while True:
            try:
                notes.append(next(found).text)
            except StopIteration as ended:
                return [len(group) for group in ended.value], notes

    assert groups("auto", Trial(None, 1.0, 0.9)) == ([1] * 4, [])
    assert groups("on", Trial(None, 1.0, 0.9)) == (
        [4],
        ["trained 4 at a time: one pass of them takes 0.90 of the time one by one"],
    )
    assert groups("auto", Trial(None, 1.0, 0.89))[0] == [4]
    assert groups("auto", Trial("it is odd")) == ([1] * 4, [])
    assert groups("on", Trial("it is odd")) == ([1] * 4, ["trained one by one: it is odd"])
    assert groups("auto", Trial("full", memory=True), Trial(None, 1.0, 0.5))[0] == [2, 2]
    assert asked == [4, 2]
