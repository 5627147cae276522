"""A study's folder under several writers, signals to a whole group, and words that mean something elsewhere."""

import json
import math
import os
import signal

import pytest
from filelock import FileLock

from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.checkpoint import read
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run, RunResult
from bisam_lab.statistics.by_variant import outcomes
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import read_result, read_results, write_text
from bisam_lab.study.folder import Study

from .run.runs import StopAfter, logged
from .test_cli import TINY, bisam, in_process, start, wait_for


def strict(text):
    """JSON as the standard has it: without NaN, which Python alone writes and reads."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


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


def test_a_diverged_run_is_valid_json_wherever_it_is_written(tmp_path, capsys, monkeypatch):
    from bisam_lab.cli import train as command

    recipe = load("digits", [*TINY, "train.lr=1e30"])
    run = Run("", 0, "sgd")
    study = Study(tmp_path / "s", load("digits", [*TINY, "train.lr=1e30", "methods=[sgd]", "seeds=1"]))
    result = run_cell(recipe, run, study.path(run))
    assert result.status == "diverged"
    told = strict((study.path(run) / "result.json").read_text())
    assert told["history"][-1]["train_loss"] is None
    again = read_result(study.path(run), run)
    assert again is not None
    assert math.isnan(again.history[-1].train_loss)
    found = outcomes(study.write_results(), "sgd")
    strict((study.folder / "results.jsonl").read_text())
    strict(json.dumps([outcome.to_dict() for outcome in found]))
    monkeypatch.setattr("sys.argv", ["bisam", "train"])
    command.train("digits", ["train.lr=1e30", *TINY], method="sgd", out=study.path(run), as_json=True)
    strict(capsys.readouterr().out)


def test_what_a_newer_version_says_of_an_epoch_is_left_out():
    values = RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0).to_dict()
    values["history"] = [{"epoch": 1, "train_loss": 1.0, "validation_score": 0.5, "sharpness": 3.0}]
    assert RunResult.from_dict(values).history[0].train_loss == 1.0


def test_a_half_finished_run_keeps_its_folder_for_its_recipe(tmp_path):
    recipe = load("digits", [*TINY, "methods=[sgd]", "seeds=1"])
    other = load("digits", [*TINY, "methods=[sgd]", "seeds=1", "train.lr=0.3"])
    Study(tmp_path / "s", recipe)
    study = Study(tmp_path / "s", other)  # nothing has been trained: the folder is free
    place = study.path(study.runs[0])
    place.mkdir(parents=True)
    with FileLock(place / ".lock"), pytest.raises(RecipeError, match=r"train\.lr=0\.3 there, 0.1 now"):
        Study(tmp_path / "s", recipe)
    with pytest.raises(Stopped):
        run_cell(other, study.runs[0], place, observer=StopAfter(1))
    with pytest.raises(RecipeError, match=r"train\.lr=0\.3 there, 0.1 now"):
        Study(tmp_path / "s", recipe)


def test_two_that_open_one_new_folder_at_once(tmp_path):
    """The second one sees what the first one has written so far."""
    recipe = load("digits", TINY)
    for name in (".lock", "study.json", ".recipe.yaml.1234"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text('{"schema": 2}')
        assert (Study(folder, recipe).folder / "recipe.yaml").exists()


def test_writers_with_one_process_number_do_not_meet(tmp_path, monkeypatch):
    """In containers that share a folder every process may be number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path, replace, seen = tmp_path / "a.json", os.replace, []

    def interrupted(source, target):
        if not seen:
            seen.append(source)
            write_text(path, "another's")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    write_text(path, "mine")
    assert path.read_text() == "mine"


def test_a_stray_result_is_passed_over(tmp_path):
    (tmp_path / "runs" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "seed-0" / "result.json").write_text("{}")
    assert read_results(tmp_path)[0] == []


@pytest.mark.parametrize("command", ["compare", "train"])
def test_a_file_is_no_folder(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for out in ("file", "file/run"):
        code, said = in_process(capsys, monkeypatch, command, "digits", *TINY, "--out", out)
        assert code == 2
        assert f"--out {out} " in said
        assert "name another folder" in said


def test_train_deletes_nothing_that_it_did_not_write(tmp_path, capsys, monkeypatch):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "measured.csv").write_text("precious")
    code, said = in_process(capsys, monkeypatch, "train", "digits", *TINY, "--out", str(tmp_path))
    assert code == 2
    assert "holds files of another kind" in said
    assert (tmp_path / "csv" / "measured.csv").read_text() == "precious"


@pytest.mark.parametrize("word", ["[/x]", "[red]", r"[bold\]"])
def test_brackets_are_shown_as_they_are(word, capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "compare", word)
    assert code == 2
    assert word in said.replace("\\\\", "\\")


def test_a_folder_with_brackets(tmp_path):
    done = bisam("train", "digits", *TINY, "--method", "sgd", "--out", "[red]/[/x]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in [red]/[/x]" in done.stdout


def test_seeds_have_an_end(capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "train", "digits", "--seed", str(2**32))
    assert code == 2
    assert "4294967295" in said


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ("{../../up: {}}", "must name a folder inside the study"),
        ("{/tmp/up: {}}", "must name a folder inside the study"),
        ('{"": {train.lr: 1}}', "must name a folder inside the study"),
        ("{a: {seeds: 9}}", "seeds is the study's, not a variant's"),
        ("{a: {methods: [sgd]}}", "methods is the study's, not a variant's"),
    ],
)
def test_variants_that_cannot_be(variants, words):
    with pytest.raises(RecipeError, match=words):
        load("digits", [f"variants={variants}"])
