"""One folder, two recipes: whoever comes second is told, and no table mixes their runs."""

import dataclasses
import json

import pytest

from bisam_lab.recipe import RecipeError, digest, load
from bisam_lab.report.collect import collect
from bisam_lab.run.result import Run, RunResult
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import OtherRecipeError, read_results, write_text
from bisam_lab.study.folder import Study

from ..test_cli import TINY, in_process, start


def small(*given):
    return load("digits", [*TINY, "methods=[sgd]", "seeds=1", "train.epochs=1", *given])


def finished(study, of):
    """Write the result of the study's only run, as if it had been trained with the recipe of a digest."""
    run = study.runs[0]
    result = RunResult(run.method, run.seed, "ok", 0.5, 0.5, 1, 1.0, 1.0, recipe=of)
    study.path(run).mkdir(parents=True, exist_ok=True)
    write_text(study.path(run) / "result.json", json.dumps(result.to_dict()))


@pytest.mark.slow
def test_two_processes_that_start_at_once(tmp_path):
    args = ["compare", "digits", *TINY, "--methods", "sgd", "--seeds", "1", "--jobs", "1", "--stack", "off"]
    both = [start(*args, f"train.lr={lr}", cwd=tmp_path) for lr in ("0.1", "0.2")]
    told = [" ".join(process.communicate(timeout=120)[0].split()) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], told
    won, lost = codes.index(0), codes.index(2)
    assert "holds a study of another recipe (train.lr=" in told[lost]
    assert "seed 0: test" not in told[lost]
    assert "seed 0: test" in told[won]
    rows = [json.loads(line) for line in (tmp_path / "studies" / "digits" / "results.jsonl").read_text().splitlines()]
    mine = load("digits", [*TINY, f"train.lr={(0.1, 0.2)[won]}"])
    assert [row["recipe"] for row in rows] == [digest(mine)]


def test_while_a_process_is_at_work_the_folder_is_its_recipes(tmp_path):
    first = Study(tmp_path / "s", small())
    second = Study(tmp_path / "s", small("train.lr=0.2"))  # nobody is at work yet
    with first.at_work():
        for at_once in (lambda: Study(tmp_path / "s", small("train.lr=0.2")), lambda: second.at_work().__enter__()):
            with pytest.raises(RecipeError, match=r"train\.lr=0\.1 there, 0\.2 now"):
                at_once()
        with Study(tmp_path / "s", small("seeds=3")).at_work():  # the same recipe may join
            assert len(list((tmp_path / "s" / ".at-work").iterdir())) == 2
    (tmp_path / "s" / ".at-work" / "of-a-killed-process.lock").touch()
    with second.at_work():
        assert "lr: 0.2" in (tmp_path / "s" / "recipe.yaml").read_text()


def test_a_result_of_another_recipe_is_refused_and_stays(tmp_path):
    """Were it set aside, two studies in one folder would throw out each other's runs for ever."""
    study = Study(tmp_path / "s", small())
    finished(study, digest(small("train.lr=0.2")))
    with pytest.raises(OtherRecipeError, match=r"result\.json is the result of another recipe"):
        study.results()
    with pytest.raises(OtherRecipeError):
        run_cell(study.recipe, study.runs[0], study.path(study.runs[0]))
    assert read_results(study.folder) == ([], ["runs/sgd/seed-0/result.json (of another recipe)"])
    (found,) = collect([study.folder]).studies
    assert "runs/sgd/seed-0/result.json (of another recipe)" in " ".join(found.notes)
    assert not (study.folder / "quarantine").exists()


def test_an_old_result_is_told_apart(tmp_path):
    notes = []
    study = Study(tmp_path / "s", small(), note=notes.append)
    finished(study, "")
    assert [result.recipe for result in study.write_results()] == [""]
    assert notes == [
        "1 of 1 results were written before results named their recipe: that they are of this one is said by "
        "recipe.yaml alone"
    ]
    (found,) = collect([study.folder]).studies
    assert "1 of 1 results were written before results named their recipe" in " ".join(found.notes)
    finished(study, digest(small()))
    study.write_results()
    assert len(notes) == 1


def test_equal_cost_has_the_digest_of_its_epochs(tmp_path):
    recipe = small("methods=[sgd,sam]", "train.epochs=4")
    study = Study(tmp_path / "s", recipe)
    study.set_budget("passes", {"": {"sgd": 1.0, "sam": 2.0}})
    longer = next(run for run in study.runs if run.equal_cost)
    assert study.recipe_of(longer).train.epochs == 8
    result = RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0, equal_cost=True, recipe=digest(study.recipe_of(longer)))
    study.path(longer).mkdir(parents=True)
    for kept, expected in ((result, [longer]), (dataclasses.replace(result, recipe=digest(recipe)), None)):
        write_text(study.path(longer) / "result.json", json.dumps(kept.to_dict()))
        if expected is None:
            with pytest.raises(OtherRecipeError):
                study.results()
        else:
            assert list(study.results()) == expected


def test_what_the_digest_stands_for():
    same = load("digits", ["train.epochs=20", "train.weight_decay=0.0005", "name=other", "seeds=2", "methods=[sgd]"])
    assert digest(same) == digest(load("digits", ["train.epochs=20"]))
    assert digest(load("digits", ["model.options.width=8.0"])) == digest(load("digits", ["model.options.width=8"]))
    assert digest(load("digits", ["train.lr=0.2"])) != digest(load("digits"))
    assert digest(load("digits", ["sharpness.options.looksam.k=3"])) != digest(load("digits"))


def test_a_finished_training_of_another_recipe_is_no_result_of_this_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, folder = small(), tmp_path / "t"
    run_cell(recipe, Run("", 0, "sgd"), folder, keep=True)
    words = [*TINY, "train.epochs=1", "train.lr=0.2", "--method", "sgd", "--seed", "0"]
    code, said = in_process(capsys, monkeypatch, "train", "digits", *words, "--out", "t")
    assert code == 2
    assert "is the result of another recipe" in said


@pytest.mark.parametrize(("command", "mark"), [("train", "recipe.yaml"), ("compare", ".claim.lock")])
def test_folders_of_other_commands(command, mark, tmp_path, capsys, monkeypatch):
    (tmp_path / ".lock").touch()
    (tmp_path / "recipe.yaml").write_text(small().to_yaml())
    (tmp_path / mark).touch()
    code, said = in_process(capsys, monkeypatch, command, "digits", *TINY, "train.epochs=1", "--out", str(tmp_path))
    assert code == 2
    assert "is the folder of a " in said
