"""The page of a tuning, read as HTML."""

import re
import shutil

import pytest

from bisam_lab.errors import RecipeError
from bisam_lab.report import collect, render
from bisam_lab.report.one_tuning import collect_tuning
from bisam_lab.tuning.result import read_trials

from .folders import Page, study, tuning_folder
from .test_collect import in_process


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tuning_folder(tmp_path_factory.mktemp("tuned") / "digits-sam", trials=12)


def test_the_page_says_what_the_tuning_found(tuned):
    html = render(collect([tuned]))
    page, data = Page(html), collect_tuning(tuned)
    best, own = data.found.result.best, data.found.result.default
    said = " ".join(page.text.split())
    assert f"Best, trial {best.trial}: {100 * best.score:.2f} % validation accuracy" in said
    assert f"setting, trial 0, has {100 * own.score:.2f} %" in said
    assert "is too high an estimate" in said and "evidence" not in said, "a page of a study without results"
    rho, lr = page.tables["best"][1:]
    assert rho == ["rho", f"{best.settings['rho']:.4g}", "0.4", "0.00625 to 1.6, log"]
    assert lr == ["lr", f"{best.settings['lr']:.4g}", "0.1", "0.01 to 1, log"]
    assert len(page.tables["trials"]) == 1 + 12
    assert page.tables["trials"][5][1] == "pruned" and page.tables["trials"][1][1] == "complete recipe's own"
    shares = data.found.result.importances
    assert re.findall(r'class="told">(\d+ %)<', html) == [f"{100 * share:.0f} %" for share in shares.values()]
    kinds = [a.get("class", "").split()[-1] for tag, a in page.tags if tag == "g" and "trial " in a.get("class", "")]
    assert len(kinds) == 12 and kinds[-1] == "chosen" and kinds.count("pruned") == 2, "parallel coordinates"
    assert sum(a.get("class") == "mark complete" for _, a in page.tags) == 3 * 9 + 1, "history, two slices, legend"
    assert f"bisam compare {tuned / 'best.yaml'}" in said
    assert 'http-equiv="refresh"' not in html
    for tag, attributes in page.tags:
        assert re.match(r"#|data:", attributes.get("href") or "#"), (tag, attributes)


def test_a_moved_folder_and_one_of_an_older_version_have_the_same_page(tuned, tmp_path):
    """Optuna knows a study by the folder's name, and an older version wrote the method into the journal alone."""
    whole = collect_tuning(tuned)
    shutil.copytree(tuned, tmp_path / "moved")
    (tmp_path / "moved" / "tuning.json").unlink()
    before = (tmp_path / "moved" / "optuna.log").read_bytes()
    moved = collect_tuning(tmp_path / "moved")
    assert (moved.found.result, moved.method, moved.seeds) == (whole.found.result, "sam", "1000")
    assert (tmp_path / "moved" / "optuna.log").read_bytes() == before, "a report changes nothing"
    (tmp_path / "moved" / "optuna.log").unlink()  # as where the trials lie in a --storage
    shutil.copy(tuned / "tuning.json", tmp_path / "moved")
    table = collect_tuning(tmp_path / "moved")
    assert [(t.trial, t.pruned, t.default) for t in table.found.result.scored] == [
        (t.trial, t.pruned, t.default) for t in whole.found.result.scored
    ]
    assert table.found.result.best.score == pytest.approx(whole.found.result.best.score)
    assert table.found.result.importances == pytest.approx(whole.found.result.importances, abs=0.02)


def test_a_tuning_that_goes_on_says_so(tmp_path):
    folder = tuning_folder(tmp_path / "t", trials=2, wanted=30)
    html = render(collect([folder]))
    assert "2 of 30 trials have ended." in Page(html).text and 'http-equiv="refresh"' in html
    assert "They need 10 trials whose scores differ" in Page(html).text
    none = render(collect([tuning_folder(tmp_path / "none", trials=0, wanted=3)]))
    assert "No trial has run to its end" in Page(none).text


def test_a_tuning_beside_a_study_is_a_part_of_one_page(tuned, tmp_path, capsys, monkeypatch):
    code, _, _ = in_process(capsys, monkeypatch, tuned, study(tmp_path / "s"), "--out", tmp_path / "both.html")
    page = Page((tmp_path / "both.html").read_text())
    assert code == 0 and len(page.tables["trials"]) == 13 and len(page.tables["comparison"]) == 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("optuna.log", '{"op_code": 0}\n{"op', "optuna.log is damaged"),
        ("optuna.log", "[1]\n2\n", "optuna.log is damaged"),
        ("tuning.json", "[", "tuning.json is damaged"),
        ("tuning.json", '{"space": {"rho": 3}}', "tuning.json is damaged"),
        ("tuning.json", '{"space": {"rho": {"low": "x", "high": 1, "log": true}}}', "tuning.json is damaged"),
        ("recipe.yaml", "a: [", "recipe.yaml cannot be read"),
    ],
)
def test_damage_is_one_sentence(tuned, tmp_path, capsys, monkeypatch, name, text, words):
    shutil.copytree(tuned, tmp_path / "t")
    (tmp_path / "t" / name).write_text(text)
    code, _, said = in_process(capsys, monkeypatch, tmp_path / "t")
    told = said.replace(" ", "")  # a long path is broken anywhere
    assert code == 2 and words.replace(" ", "") in told and "Traceback" not in said
    assert len(said.replace(str(tmp_path), "")) < 200


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "trial,state,score,epochs,seconds,default,rho,error\n0,gone,x,1,1,0,0.1,\n"]
)
def test_a_damaged_table_is_one_sentence(tmp_path, text):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "trials.csv").write_text(text)
    if text:
        with pytest.raises(RecipeError, match=r"trials.csv is damaged"):
            collect_tuning(tmp_path / "t")
    else:
        assert collect_tuning(tmp_path / "t").found.rows == []


def test_the_tuning_itself_reads_the_same(tuned):
    from tests.lab.tuning.small import small

    tuning = small(tuned, space=["train.lr=0.01:1:log"], trials=12)
    assert read_trials(tuning, tuning.open()) == collect_tuning(tuned).found.result
