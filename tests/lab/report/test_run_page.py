"""The page of runs that bisam train wrote, read as HTML."""

import json
import re

import pytest

from bisam_lab.errors import RecipeError
from bisam_lab.report import collect, render
from bisam_lab.report.one_run import read_run

from .folders import Page, run_folder, study


def charts(page):
    return {
        (a["data-quantity"], a["data-axis"]): json.loads(a["data-lines"]) for _, a in page.tags if "data-lines" in a
    }


def test_a_run_shows_every_curve_it_recorded(tmp_path):
    html = render(collect([run_folder(tmp_path / "r")]))
    page, drawn = Page(html), charts(Page(html))
    assert list(drawn) == [
        ("validation_score", "epoch"),
        ("validation_score", "passes"),
        ("validation_score", "seconds"),
        ("train_loss", "epoch"),
        ("gap", "epoch"),
        ("gradient_norm", "epoch"),
        ("learning_rate", "epoch"),
        ("rho", "epoch"),
        ("eps_norm", "epoch"),
    ]
    ends = {key: lines[0]["p"][-1] for key, lines in drawn.items()}
    assert ends["validation_score", "epoch"] == [3, 80]
    assert ends["validation_score", "passes"] == [3 * 2 * 10, 80] and ends["validation_score", "seconds"] == [6, 80]
    assert ends["gap", "epoch"] == [3, 15] and ends["eps_norm", "epoch"] == [3, 0.4]
    assert page.tables["runs"][1] == ["sam", "3", "ok", "84.00", "80.00", "3", "3 of 3", "12.5", "50.0"]
    assert "bisam train run.yaml --method sam --seed 3 --out again" in page.text
    assert ["gpus", "H100"] in page.tables["environment"] and 'class="chip"' not in html


def test_several_runs_share_their_charts(tmp_path):
    folders = [run_folder(tmp_path / "a"), run_folder(tmp_path / "b", method="sgd", rho=0.0, eps=0.0)]
    folders.append(run_folder(tmp_path / "c", method="momentumsam", at="w + eps", recorded=False))
    page = Page(render(collect(folders)))
    drawn = charts(page)
    assert [line["n"] for line in drawn["validation_score", "epoch"]] == [
        "momentumsam, seed 3",
        "sam, seed 3",
        "sgd, seed 3",
    ]
    assert [line["m"] for line in drawn["train_loss", "epoch"]] == ["sam", "sgd"], "at w"
    assert "left out, because theirs is at w + eps: momentumsam" in " ".join(page.text.split())
    assert ("validation_score", "passes") not in drawn, "one of them did not record its passes"


def test_a_run_that_still_trains_has_its_curves_so_far(tmp_path):
    folder = run_folder(tmp_path / "r", finished=False)
    html = render(collect([folder]))
    page, drawn = Page(html), charts(Page(html))
    assert 'http-equiv="refresh"' in html
    assert "sam seed 3: 2 of 3 epochs are trained." in page.text
    assert page.tables["runs"][1][:5] == ["sam", "3", "training", "later", "75.00"]
    assert drawn["gap", "epoch"][0]["p"] == [[1, 5], [2, 10]]
    (folder / "csv" / "metrics.csv").write_text("step,train_loss,validation_score\n1,x,y\n")
    with pytest.raises(RecipeError, match=r"metrics.csv is damaged"):
        read_run(folder)
    (folder / "csv" / "metrics.csv").unlink()
    assert "No epoch is trained yet." in Page(render(collect([folder]))).text
    (folder / "result.json").write_text("{")
    with pytest.raises(RecipeError, match=r"result.json cannot be read .*: remove it and repeat bisam train"):
        read_run(folder)


def test_a_run_of_a_study_knows_the_studys_recipe(tmp_path):
    folder = study(tmp_path / "s")
    (folder / "study.json").write_text('{"schema": 2}')
    found = read_run(folder / "runs" / "sam" / "seed-1")
    assert (found.result.seed, found.recipe["name"], found.epochs) == (1, "study", 6)
    html = render(collect([folder / "runs" / "sam" / "seed-1"]))
    assert re.search("<title>study, sam seed 1 · bisam report</title>", html)
