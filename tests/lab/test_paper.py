"""``make paper``: the most informative runs first, an end when time is over, and the same folders next time."""

import importlib.util
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bisam_lab.recipe import RecipeError, digest
from bisam_lab.run.result import RunResult
from bisam_lab.study.files import write_result

SPEC = importlib.util.spec_from_file_location("paper", Path(__file__).parents[2] / "benchmarks" / "paper.py")
paper = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(paper)


def test_the_plan_begins_with_sam_and_the_log_bound_and_holds_both_tables():
    plan = paper.plan()
    assert plan[0] == ("table1-cifar10", "resnet-56", ("sam", "bisam-log"))
    assert plan[1] == ("table1-cifar10", "resnet-56", ("sam", "bisam-log", "bisam-tanh"))
    assert plan[2].table == "table2-cifar100"
    last = {(part.table, part.network): part.methods for part in plan}
    assert len(plan) == len(set(plan)) == 20
    assert set(last) == {(table, network) for table in paper.TABLES for network in paper.NETWORKS}
    assert set(last.values()) == {("sam", "bisam-log", "bisam-tanh")}


def test_the_stages_of_a_network_share_a_folder_and_are_the_recipe(tmp_path):
    first, second = (paper.study_of(part, tmp_path, None, False, []) for part in paper.plan()[:2])
    assert first.folder == second.folder == tmp_path / "table1-cifar10-resnet-56"
    assert (len(first.runs), len(second.runs)) == (12, 18)
    recipe = second.recipe_of(second.runs[0])
    assert (recipe.model.name, recipe.train.epochs, recipe.sharpness.rho) == ("resnet-56", 200, 0.05)


def test_training_ends_when_time_is_over_and_tells_what_failed(tmp_path, monkeypatch):
    study = paper.study_of(paper.plan()[0], tmp_path, None, True, [])
    closed = []

    def events(*args, error=None, **kwargs):
        try:
            for _ in study.runs:
                result = None if error else SimpleNamespace(test_score=0.5)
                yield SimpleNamespace(job="a run", result=result, error=error)
        finally:
            closed.append(True)

    monkeypatch.setattr(paper, "run_study", events)
    assert not paper.train(study, 1, time.monotonic() - 1)
    assert closed == [True], "the runs' processes save their state"
    monkeypatch.setattr(paper, "run_study", lambda *args, **kwargs: events(error="no memory"))
    with pytest.raises(RecipeError, match="a run failed: no memory; the same command goes on"):
        paper.train(study, 1, time.monotonic() + 60)


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["paper.py", *map(str, words)])
    paper.main()


def test_the_plan_counts_what_is_done_and_writes_nothing(tmp_path, monkeypatch, capsys):
    called(monkeypatch, "--plan", "--smoke", "--parts", 2, "--out", tmp_path / "new")
    assert capsys.readouterr().out.count(": 0 of ") == 2
    assert list(tmp_path.iterdir()) == []
    study = paper.study_of(paper.plan()[1], tmp_path, None, True, [])
    for run, its in zip(study.runs, ("", "another", None), strict=False):
        name = digest(study.recipe_of(run)) if its is None else its
        study.path(run).mkdir(parents=True)
        write_result(
            study.path(run), RunResult(run.method, run.seed, "ok", 0.5, 0.5, 1, 1.0, 1.0, run.variant, recipe=name)
        )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    called(monkeypatch, "--plan", "--smoke", "--parts", 2, "--out", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    first, second = capsys.readouterr().out.splitlines()
    assert (first.split(": ")[-1], second.split(": ")[-1]) == ("1 of 2 runs are done", "2 of 3 runs are done")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "nan"], "argument --hours: invalid positive value: 'nan'"),
        (["--parts", "-3"], "argument --parts: invalid count value: '-3'"),
        (["--jobs", "0"], "argument --jobs"),
        (["--plan", "--set", "train.epohcs=3"], "error: train.epohcs: unknown key: did you mean train.epochs=3?"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(words, said, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        called(monkeypatch, *words)
    assert left.value.code == 2
    assert said in capsys.readouterr().err
