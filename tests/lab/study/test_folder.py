"""A study's folder: whose it is, and what it says of runs that diverged."""

import json
import math

import pytest
from filelock import FileLock

from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run
from bisam_lab.statistics.by_variant import outcomes
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import read_result
from bisam_lab.study.folder import Study

from ..run.runs import StopAfter
from ..test_cli import TINY


def strict(text):
    """JSON as the standard has it: without NaN, which Python alone writes and reads."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


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
    command.train("digits", ["train.lr=1e30", *TINY], method="sgd", out=str(study.path(run)), as_json=True)
    strict(capsys.readouterr().out)


def test_fresh_seeds_after_those_of_a_tuning(tmp_path):
    """They join the study's other seeds, for which runs there are is no part of what a run is."""
    begun = Study(tmp_path / "s", load("digits", [*TINY, "methods=[sgd]", "seeds=1"]))
    run_cell(begun.recipe, begun.runs[0], begun.path(begun.runs[0]))
    fresh = Study(tmp_path / "s", load("digits", [*TINY, "methods=[sgd,sam]", "seeds=2", "first_seed=7"]))
    assert [(run.seed, run.method) for run in fresh.runs] == [(7, "sgd"), (7, "sam"), (8, "sgd"), (8, "sam")]
    result = run_cell(fresh.recipe, fresh.runs[1], fresh.path(fresh.runs[1]))
    assert list(fresh.results()) == [fresh.runs[1]]
    assert (result.seed, result.passes) == (7, 2.0)
    with pytest.raises(RecipeError, match="first_seed"):
        load("digits", ["first_seed=-1"])


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
