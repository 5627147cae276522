"""Folders that are set aside for another to begin in their place."""

import pytest
from filelock import FileLock

from bisam_lab.recipe import RecipeError
from bisam_lab.study.aside import set_aside


def test_a_folder_is_renamed_and_nothing_in_it_is_lost(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        run = tmp_path / "s" / "runs" / "sgd" / "seed-0"
        run.mkdir(parents=True)
        (run / ".lock").touch()
        (run / "result.json").write_text(f"result {number}")
        (tmp_path / "s" / "recipe.yaml").touch()
        there = set_aside((tmp_path / "s").relative_to(tmp_path), ("recipe.yaml",))
        assert str(there) == f"s.{number}"
        assert (there / "runs" / "sgd" / "seed-0" / "result.json").read_text() == f"result {number}"
        assert not (tmp_path / "s").exists()


def test_what_is_no_folder_of_results_stays(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert set_aside(tmp_path, ("recipe.yaml", "study.json")) is None
    assert set_aside(tmp_path / "none", ("recipe.yaml",)) is None
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_in_which_a_process_trains_stays(tmp_path):
    run = tmp_path / "s" / "runs" / "sgd" / "seed-0"
    run.mkdir(parents=True)
    (tmp_path / "s" / "recipe.yaml").touch()
    with (
        FileLock(run / ".lock"),
        pytest.raises(RecipeError, match=r"another process is training in .*s: stop it first"),
    ):
        set_aside(tmp_path / "s", ("recipe.yaml",))
    assert run.is_dir()
    assert not (tmp_path / "s.1").exists()
