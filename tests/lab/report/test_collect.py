"""What is read from the folders of studies, and which folders are refused."""

import json
import sys

import pytest

import bisam_lab
from bisam_lab.recipe import RecipeError
from bisam_lab.report import collect

from .folders import study


def in_process(capsys, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["bisam", "report", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    said = capsys.readouterr()
    return left.value.code, said.out, " ".join(said.err.split())


def test_the_command_writes_a_page_or_prints_its_data(tmp_path, capsys, monkeypatch):
    folder, out = study(tmp_path / "s"), tmp_path / "new" / "page.html"
    assert in_process(capsys, monkeypatch, folder, "--out", out, "--baseline", "sam")[0] == 0
    assert "minus that of sam" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"], "no temporary file stays"
    code, text, _ = in_process(capsys, monkeypatch, folder, "--json")
    block = json.loads(text)["studies"][0]["blocks"][0]
    assert code == 0
    assert block["comparison"][1]["difference"] == pytest.approx(13 / 3)
    assert block["comparison"][0]["difference"] is None, "JSON has no NaN"
    assert block["runs"][3]["history"]["epoch"] == [1, 2, 3, 4, 5, 6]
    assert set(block) == set(collect([folder]).to_dict()["studies"][0]["blocks"][0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is no folder"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path.mkdir(), (path / "x").write_text("")), "has no recipe.yaml"),
        (lambda path: (path.mkdir(), study(path / "inner")), "did you mean .*inner"),
        (lambda path: (path.mkdir(), (path / "recipe.yaml").write_text("a: [")), "cannot be read"),
        (lambda path: (path.mkdir(), (path / "recipe.yaml").write_text("- a")), "is no recipe"),
    ],
)
def test_a_folder_that_is_no_study_is_one_sentence(tmp_path, make, words):
    make(tmp_path / "s")
    with pytest.raises(RecipeError, match=words):
        collect([tmp_path / "s"])


def test_wrong_arguments_are_one_sentence(tmp_path, capsys, monkeypatch):
    folder = study(tmp_path / "s")
    code, _, said = in_process(capsys, monkeypatch, folder, "--baseline", "adam")
    assert code == 2 and said == "error: --baseline adam is not among the methods sgd, sam, <b>odd"
    code, _, said = in_process(capsys, monkeypatch, folder, "--out", tmp_path)
    assert code == 2 and "is a folder: name a file" in said
