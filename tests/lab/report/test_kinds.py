"""What a folder holds, and where its page belongs."""

import json
import os

import pytest
import yaml

from bisam_lab.errors import RecipeError
from bisam_lab.report.kinds import kind_of
from bisam_lab.study.files import write_text

from .folders import result, run_folder, study, tuning_folder
from .test_collect import in_process


def test_each_kind_is_known_by_its_files(tmp_path):
    assert kind_of(study(tmp_path / "s")) == "study"
    assert kind_of(tuning_folder(tmp_path / "t", trials=3)) == "tuning", "it holds a recipe.yaml, too"
    assert kind_of(run_folder(tmp_path / "r")) == "run"
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    assert kind_of(tmp_path / "begun") == "run"
    for path, words in ((tmp_path / "none", "is no folder"), (tmp_path / "begun" / "checkpoints", "is empty")):
        with pytest.raises(RecipeError, match=words):
            kind_of(path)
    with pytest.raises(RecipeError, match=r"did you mean .+ or another\?"):
        kind_of(tmp_path)


def test_a_page_lies_in_its_folder_and_replaces_no_other(tmp_path, capsys, monkeypatch):
    """report.html in the current folder was everybody's page."""
    monkeypatch.chdir(tmp_path)
    a, b = study(tmp_path / "a", name="first"), study(tmp_path / "b", name="second")
    for folder, name in ((a, "first"), (b, "second")):
        code, out, _ = in_process(capsys, monkeypatch, folder.name)
        assert (code, out.strip()) == (0, os.path.join(folder.name, "report.html"))
        assert f"<title>{name} · bisam report</title>" in (folder / "report.html").read_text()
    code, out, _ = in_process(capsys, monkeypatch, "a", "b")
    assert (code, out.strip()) == (0, "report.html") and "2 studies" in (tmp_path / "report.html").read_text()
    study(tmp_path / "c")
    code, _, said = in_process(capsys, monkeypatch, "a", "c")
    assert code == 2 and "report.html is the page of other folders: name this one with --out" in said
    assert in_process(capsys, monkeypatch, "a", "b")[0] == 0, "its own it writes again"
    assert in_process(capsys, monkeypatch, "a", "--out", "report.html")[0] == 0, "so does one that is named"
    code, _, said = in_process(capsys, monkeypatch, "a", "--out", "a/recipe.yaml")
    assert code == 2 and "a/recipe.yaml is there and is no page of bisam report" in said
    assert yaml.safe_load((a / "recipe.yaml").read_text())["name"] == "first"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    code, _, said = in_process(capsys, monkeypatch, study(tmp_path / "s"), "--out", tmp_path / "file" / "page.html")
    assert code == 2 and "cannot be written" in said and "--out" in said


def test_a_page_is_watched_until_all_is_done(tmp_path, capsys, monkeypatch):
    folder = study(tmp_path / "s", skip={("sam", 2)})

    def train_the_last(seconds):
        assert seconds >= 5 and 'http-equiv="refresh"' in (folder / "report.html").read_text()
        write_text(folder / "runs" / "sam" / "seed-2" / "result.json", json.dumps(result("sam", 2, 0.87).to_dict()))

    (folder / "runs" / "sam" / "seed-2").mkdir()
    monkeypatch.setattr("bisam_lab.cli.report.time.sleep", train_the_last)
    assert in_process(capsys, monkeypatch, folder, "--watch")[0] == 0
    page = (folder / "report.html").read_text()
    assert "8 of 9 runs" not in page and 'http-equiv="refresh"' not in page
