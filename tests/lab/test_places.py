"""Every command that takes a path understands a URL, or refuses it: none makes a folder of the name ``s3:``."""

from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import typer

from bisam_lab import Study, compare
from bisam_lab.cli import recipes
from bisam_lab.cli.app import app
from bisam_lab.cli.data import data
from bisam_lab.cli.places import is_url, path_of
from bisam_lab.errors import RecipeError

from .test_cli import in_process

COMMAND = typer.main.get_command(app)
#: Options of paths that understand URLs, each of which has a test of its own.
UNDERSTOOD = {("compare", "out"), ("train", "out"), ("report", "places"), ("audit", "checkpoints")}


def leaves(command, words=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*words, name))
    if not hasattr(command, "commands"):
        yield words, command


def paths():
    for words, command in leaves(COMMAND):
        for param in command.params:
            option = max(param.opts, key=len)
            named = param.name in ("out", "to", "data_dir", "places", "checkpoints") or "PATH" in str(param.metavar)
            if named and (words[-1], param.name) not in UNDERSTOOD:
                yield pytest.param(words, option, id=" ".join([*words, option]))


@pytest.mark.parametrize(("words", "option"), list(paths()))
def test_a_url_where_a_path_belongs_is_refused(words, option, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["digits", "s3://bucket/x"] if not option.startswith("-") else ["digits", option, "s3://bucket/x"]
    if words == ("data", "list"):
        given = given[1:]
    code, said = in_process(capsys, monkeypatch, *words, *given)
    assert code == 2
    assert "this must lie on a disk" in said.replace("│ ", "")
    assert not list(tmp_path.iterdir())


def test_every_path_goes_through_the_parser_that_refuses():
    commands = [*app.registered_commands, *recipes.app.registered_commands, *data.registered_commands]
    seen = 0
    for command in commands:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            inner, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
            if "pathlib" in str(inner):
                assert extras[0].parser is not None, (command.callback.__name__, name)
                seen += 1
    assert seen == len(list(paths())) >= 12


def test_python_refuses_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must lie on a disk"):
        compare("digits", out="s3://bucket/x")
    with pytest.raises(RecipeError, match="must lie on a disk"):
        Study("s3://bucket/x")
    assert not list(tmp_path.iterdir())


def test_a_file_url_is_a_path():
    assert path_of("file:///tmp/x") == Path("/tmp/x")
    assert path_of("studies/x") == Path("studies/x")
    assert not is_url("file:///tmp/x")
    assert is_url("file://tmp/x"), "it names a host"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "digits", "--out", "ftp://host/x"], "no storage that can be used"),
        (["train", "digits", "--out", "memory://a/b"], "would be gone with this process"),
        (["compare", "digits", "--out", "s3://bucket"], "names no folder in a bucket: write s3://BUCKET/FOLDER"),
        (["compare", "digits", "--out", "s3://bucket/x", "--restart"], "no object storage can"),
        (["train", "digits", "engine.devices=2", "--out", "s3://bucket/x"], "a folder that all of them share"),
        (["compare", "digits", "engine.devices=2", "--out", "s3://bucket/x"], "a folder that all of them share"),
        (["audit", "s3://bucket/x", "--grid"], "this must lie on a disk; --grid reads folders"),
        (["tune", "digits", "--out", "s3://bucket/x"], "--storage postgresql://HOST/DB"),
        (["report", "studies/a", "s3://bucket/x"], "name the page with --out"),
    ],
)
def test_what_a_url_cannot_be_is_said(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, told = in_process(capsys, monkeypatch, *words)
    assert code == 2
    assert said in told.replace("│ ", "")
    assert not list(tmp_path.iterdir())
