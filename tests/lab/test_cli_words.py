"""What the command says: brackets in what a user typed, wrong paths, counts, time left, and remedies."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

import bisam_lab
from bisam_lab.cli.app import flowing
from bisam_lab.cli.watch import Watch
from bisam_lab.run.result import Epoch


def said_by(capsys, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["bisam", *args])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    printed = capsys.readouterr()
    return left.value.code, " ".join(printed.out.split()), " ".join(printed.err.split())


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["compare", "[/x]"], 2, ["'[/x]'"]),  # these were taken for markup: a traceback
        (["report", "[red]"], 2, ["[red] is no folder"]),  # or lost
        (["recipes", "copy", "digits", "no/d.yaml"], 1, ["no/d.yaml", "No such file or directory", "can be written"]),
        (["compare", "--methods", "adamw,sam"], 2, ["adamw", "train.optimizer=adamw", "sgd"]),
        (["compare", "data.name=folders:pictures"], 2, ["did you mean folder:pictures?"]),
        (["compare", "data.name=folder:nowhere", "--smoke"], 2, ["data.name", "folder:nowhere", "no folder nowhere"]),
        (["compare", "data.name=text:nowhere", "model.name=hf:bert", "--smoke"], 2, ["data.name", "text:nowhere"]),
        (["data", "verify", "pets2"], 2, ["'pets2'", "did you mean pets?"]),
        (["data", "verify", "glue"], 2, ["glue is none of", "glue:cola"]),
    ],
)
def test_what_was_wrong_is_named_with_its_remedy(args, code, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left, _, error = said_by(capsys, monkeypatch, *args)
    assert left == code
    for word in words:
        assert word in error


def test_a_run_in_the_folder_of_another_is_refused_with_the_way_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "data.train_size=64", "model.options.width=2", "train.epochs=1", "--out", "[/r]"]
    code, out, _ = said_by(capsys, monkeypatch, *train)
    assert code == 0
    assert "in [/r]" in out
    code, _, error = said_by(capsys, monkeypatch, *train, "--seed", "1")
    assert code == 2
    assert "seed 0" in error
    assert "--out" in error
    Path("[/r]/result.json").unlink()
    assert said_by(capsys, monkeypatch, *train, "seeds=3")[0] == 0  # it chooses runs, and changes none
    Path("[/r]/result.json").unlink()
    code, _, error = said_by(capsys, monkeypatch, *train, "train.lr=0.3")
    assert code == 2
    assert "train.lr=0.1 there, 0.3 now" in error
    assert "--out" in error


def test_a_run_of_another_recipe_is_kept_beside_with_restart(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "data.train_size=64", "model.options.width=2", "train.epochs=1", "--out", "r"]
    assert said_by(capsys, monkeypatch, *train)[0] == 0
    before = Path("r/result.json").read_text()
    code, out, error = said_by(capsys, monkeypatch, *train, "train.lr=0.3", "--restart", "--seed", "1")
    assert (code, error) == (0, "")
    assert "What was in r is now in r.1." in out
    assert "most test images by others" in out, "why validation is higher than test"
    assert Path("r.1/result.json").read_text() == before
    assert json.loads(Path("r/result.json").read_text())["seed"] == 1


def test_a_study_or_tuning_of_another_recipe_is_kept_beside_with_restart(tmp_path, capsys, monkeypatch):
    """Nothing is trained here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bisam_lab.cli.comparing.run_study", lambda *_, **__: (_ for _ in ()))
    compare = ["compare", "digits", "--methods", "sgd", "--jobs", "1"]
    assert said_by(capsys, monkeypatch, *compare)[0] == 0
    run = Path("studies/digits/runs/sgd/seed-0")
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}")
    code, _, error = said_by(capsys, monkeypatch, *compare, "lr=0.3", "momentum=0", "epochs=3", "rho=2")
    assert code == 2
    assert "train.epochs=20 there, 3 now; train.lr=0.1 there, 0.3 now; and 2 more" in error
    assert "or --restart, which keeps it beside" in error
    code, out, _ = said_by(capsys, monkeypatch, *compare, "lr=0.3", "--restart")
    assert code == 0
    assert "What was in studies/digits is now in studies/digits.1." in out
    assert Path("studies/digits.1/runs/sgd/seed-0/result.json").read_text() == "{}"
    code, out, _ = said_by(capsys, monkeypatch, *compare, "--out", "new", "--restart")
    assert "There was nothing in new to set aside." in out

    monkeypatch.setattr("bisam_lab.cli.searching.run_trials", lambda *_, **__: (_ for _ in ()))
    tune = ["tune", "digits", "--method", "sam", "--trials", "1", "--jobs", "1"]
    assert said_by(capsys, monkeypatch, *tune)[0] == 0
    code, _, error = said_by(capsys, monkeypatch, *tune, "train.lr=0.3")
    assert (code, "or --restart, which keeps it beside" in error) == (2, True)
    code, out, _ = said_by(capsys, monkeypatch, *tune, "train.lr=0.3", "--restart")
    assert (code, "What was in tuning/digits-sam is now in tuning/digits-sam.1." in out) == (0, True)
    code, _, error = said_by(capsys, monkeypatch, *tune, "--restart", "--storage", "sqlite:///x.db")
    assert (code, "use another --out" in error) == (2, True)


def test_data_sets_are_looked_for_where_the_environment_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BISAM_DATA", str(tmp_path))
    code, out, _ = said_by(capsys, monkeypatch, "data", "list", "--json")
    assert code == 0
    assert {row["name"]: row["here"] for row in json.loads(out)}["cifar10"] is False
    code, out, _ = said_by(capsys, monkeypatch, "data", "verify", "svhn")
    assert code == 1
    assert str(tmp_path) in out
    code, out, _ = said_by(capsys, monkeypatch, "data", "prepare", "digits")
    assert "comes with scikit-learn" in out


def test_time_left_is_not_guessed_from_no_step(capsys):
    watch = Watch(3000, Console())
    watch.step(96, 2, 2)  # the first step after going on is the last of its epoch
    watch.epoch(Epoch(96, 0.1, 0.75, 0.05, 1.0))
    assert "left" not in capsys.readouterr().out


def test_the_time_left_of_a_run_resumed_at_an_epochs_end():
    watch = Watch(3, Console(file=(out := io.StringIO()), width=200))
    watch.step(1, 8, 8)
    watch.epoch(Epoch(1, 1.0, 0.5))
    assert "left" not in out.getvalue()
    watch.step(2, 8, 8)
    watch.epoch(Epoch(2, 1.0, 0.5))
    assert "0 s left" in out.getvalue()


def test_a_paragraph_of_help_flows_and_examples_keep_their_lines():
    assert flowing("Do.\n\n    One\n    two.\n\n    [dim]a[/dim]\n    [dim]b[/dim]\n    ") == (
        "Do.\n\nOne two.\n\n[dim]a[/dim]\n[dim]b[/dim]"
    )
