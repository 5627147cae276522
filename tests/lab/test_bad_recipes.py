"""Recipes that cannot be: each is refused in one line that names the field, before torch, a path or a loop meets it."""

import os
import socket
from itertools import pairwise

import pytest

import bisam_lab
from bisam_lab.recipe import RecipeError, load

from .test_cli import in_process

DEEP = "[" * 3000
BOMB = "[&a [1,1,1,1,1,1,1,1], " + ", ".join(f"&{b} [{f'*{a}, ' * 8}]" for a, b in pairwise("abcdefghi")) + "]"


def refused(*overrides, recipe="digits"):
    with pytest.raises(RecipeError) as caught:
        load(recipe, overrides)
    said = str(caught.value)
    assert all(len(line) <= 200 for line in said.splitlines()), said
    said.encode()
    return said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2001-99-99", "is not valid YAML"),
        ("!!bool x", "is not valid YAML"),
        ("!!int x", "is not valid YAML"),
        ("!!timestamp x", "is not valid YAML"),
        ("!!python/object:os.system x", "is not valid YAML"),
        ("9" * 5000, "is not valid YAML"),
        ("9" * 30, "a number of 30 digits"),
        (DEEP, "more than 20 deep"),
        ("&a [*a]", "an alias inside the value that it stands for"),
        (BOMB, "more than 5,000 values, its aliases written out"),
        ("x" * 200_000, "100,000 are read"),
        ("2001-01-01", "is a date: put it in quotes"),
        ("!!binary aGk=", "is a bytes"),
        (".nan", "must be a finite number"),
        (".inf", "must be a finite number"),
        ('"a\\0b"', "'\\x00', which no name may have"),
        ('"\\ud800"', "'\\ud800', which no name may have"),
    ],
    ids=lambda text: text[:20].replace("\\", ""),
)
@pytest.mark.parametrize("field", ["train.lr", "name", "model.options.x", "data.name"])
def test_values_that_cannot_be_read(field, value, words):
    said = refused(f"{field}={value}")
    assert words in said
    assert field in said.replace("'", "")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name=../../up", "must be the name of one folder"),
        ("name=/tmp/up", "must be the name of one folder"),
        ("name=a/b", "must be the name of one folder"),
        ("name='a\\b'", "must be the name of one folder"),
        ("name=..", "must be the name of one folder"),
        ("name=''", "must be the name of one folder"),
        ("name=--out", "must be the name of one folder"),
        ("name=" + "x" * 300, "of at most 100"),
        ("variants={'a\\b': {}}", "must name a folder inside the study"),
        ("variants={'a/ ..': {}}", "must name a folder inside the study"),
        ('variants={"a\\0": {}}', "which no name may have"),
        ("methods=[sam@rho=0.1,sam@rho=0.10]", "leave one sam@rho=0.1 out"),
        ("methods=[bisam,bisam-log]", "leave one bisam, which is bisam-log, out"),
        ("methods=[asam+bisam,bisam-log+asam]", "names a method twice"),
        ("methods=[bisam-tanh@mu=5@alpha=0.2,bisam-tanh@alpha=0.2@mu=5.0]", "names a method twice"),
        ("methods=[sam@rho=0.1@rho=0.2]", "gives rho of sam twice"),
        ("methods=['sam@rho=\uff10.\uff11']", "must look like @rho=0.1"),
        ("methods=['sam@rho=0.1 ']", "must look like @rho=0.1"),
        ('methods=["sam@rho=0.1\\n"]', "which no name may have"),
        ("methods=[sam@rho=1_0]", "must look like @rho=0.1"),
        ("methods=[sam@rho=1e999]", "must look like @rho=0.1"),
        ("methods=['\uff53\uff41\uff4d']", "is none of"),
        ("model.name=resnet-\uff12\uff10", "is none of"),
        ("model.options.width=0", "model.options.width=0 must be a whole number from 1"),
        ("model.options.width=1e9", "model.options.width='1e9' must be a whole number from 1"),
        ("model.options.width=99999", "model.options.width=99999 must be a whole number from 1"),
        ("model.options.dropout=2", "model.options.dropout=2 must be a number from 0"),
        ("model.name=resnet-9", "the nearest is 8"),
        ("model.name=resnet-999998", "at most 2,000"),
        ("model.name=wrn-28-0", "must lie between 1 and 100"),
        ("model.name=wrn-28-5000", "must lie between 1 and 100"),
        ("engine.strategy=''", "must be one of auto"),
        ("engine.strategy=xla", "must be one of auto"),
        ("engine.strategy=dp", "splits each batch behind the optimizer's back: set engine.strategy=ddp"),
        ("engine.strategy=deepspeed", "set engine.strategy=fsdp"),
        ("engine.strategy=fsdp1", "set engine.strategy=fsdp, which is FSDP2"),
        ("engine.devices=0", "engine.devices=0"),
        ("engine.devices=true", "devices=true must be a number"),
        ("engine.nodes=0", "engine.nodes=0"),
        ("engine={devices: 2, strategy: fsdp, precision: 16-mixed}", "set engine.precision to one of 32-true"),
        ("engine={devices: 2, accelerator: mps}", "accelerator=mps has one device: set engine.devices=1"),
        ("engine.precision=fp8", "must be one of 32-true"),
        ("data.image_size=0", "data.image_size=0"),
        ("data.image_size=1000000", "data.image_size=1000000"),
        ("data.workers=100000", "data.workers=100000"),
        ("train.batch_size=1001", "train.batch_size=1001 is more than data.train_size=1000"),
        ("train.epochs=1000000000", "train.epochs=1000000000"),
        ("seeds=1000000000", "seeds=1000000000"),
        ("train.lr=true", "lr=true must be a number"),
        ("seeds=true", "seeds=true must be a number"),
        ("train.lr=1e999", "train.lr='1e999'"),
        ("train.milestones=[2]", "train.milestones.0=2"),
        ("methods=[" + ",".join(map(str, range(300))) + "]", "methods"),
        ("x" * 3000 + "=1", "a key of recipe has 3,000 characters"),
        ("x" * 3000, "must look like train.lr=0.05"),
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode(),
)
def test_values_that_cannot_be(override, words):
    assert words in refused(override)


def test_a_number_in_a_name_has_one_spelling():
    given = "methods=[sgd,sam@rho=0.10,looksam@k=10.0,asam@rho=.5e0,bisam-tanh@mu=1e1@alpha=2e-1]"
    recipe = load("digits", [given, "sharpness.radii={looksam@k=10.0: 0.3}"])
    assert recipe.methods == ("sgd", "sam@rho=0.1", "looksam@k=10", "asam@rho=0.5", "bisam-tanh@mu=10@alpha=0.2")
    assert recipe.sharpness.radii == {"looksam@k=10": 0.3}
    assert load("digits", ["methods=[esam+samon,samon+esam]"]).methods == ("esam+samon", "samon+esam"), "not the same"


def test_the_command_line_takes_another_spelling_of_a_baseline(tmp_path, capsys, monkeypatch):
    words = ["--methods", "sgd,sam@rho=0.1", "--baseline", "sam@rho=0.20", "--out", str(tmp_path)]
    code, said = in_process(capsys, monkeypatch, "compare", "digits", *words)
    assert code == 2
    assert "--baseline sam@rho=0.2 is not among the methods sgd, sam@rho=0.1" in said


def test_files_that_cannot_be_read(tmp_path):
    latin, pipe, large = tmp_path / "latin.yaml", tmp_path / "pipe.yaml", tmp_path / "large.yaml"
    latin.write_bytes("name: café\n".encode("latin-1"))
    os.mkfifo(pipe)
    large.write_bytes(b"#" * 1_000_000)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "socket.yaml"))
    for path, words in (
        (latin, "is not text in UTF-8 (byte 0xe9 at position 9): save it as UTF-8"),
        (pipe, "is a named pipe: name an ordinary file"),
        (tmp_path / "socket.yaml", "is a socket"),
        ("/dev/zero", "is a device"),
        (large, "has more than 400,000 bytes"),
    ):
        said = refused(recipe=path)
        assert words in said
        assert str(path)[-12:] in said
    sock.close()


def test_a_word_that_is_no_text(capsys, monkeypatch):
    for words in (["compare", "caf\udce9"], ["compare", "digits", "--out", "\udcff"], ["report", "\udcff"]):
        code, said = in_process(capsys, monkeypatch, *words)
        assert code == 2
        assert "of the command line is not in UTF-8: rename the file or folder" in said


def test_no_line_of_an_error_is_long(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    for words in (["compare", "train." + "y" * 90 + "=1"], ["compare", "methods=[zzz]"], ["train", "no/" * 200]):
        code, _ = in_process(capsys, monkeypatch, *words)
        assert code == 2
    monkeypatch.setattr("sys.argv", ["bisam", "compare", "methods=[zzz,sgd]"])
    with pytest.raises(SystemExit):
        bisam_lab.main()
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 200


def test_a_recipe_that_runs_code_says_so_where_it_is_passed_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = load(
        "own",
        ["model.name=net.py:Net", "data.name=my.readers:read", "train.optimizer=lion.py:Lion", "methods=[plain,sam]"],
    )
    assert code.to_yaml().startswith(
        "# It runs code when it is run: my.readers:read, net.py:Net, lion.py:Lion. Read that"
    )
    assert load_again(tmp_path, code) == code
    plain = load("own", ["model.name=hf:bert", "data.name=glue:cola"])
    assert plain.to_yaml().startswith("name: own")
    code, said = in_process(capsys, monkeypatch, "recipes", "copy", "own", "mine.yaml")
    assert code == 0
    assert "whoever runs it runs that file" in said


def load_again(folder, recipe):
    (folder / "again.yaml").write_text(recipe.to_yaml())
    return load(folder / "again.yaml")
