"""What a user first types: it is read where it has one meaning, and answered with the line to type where it has not."""

import sys

import pytest

import bisam_lab
from bisam_lab.recipe import RecipeError, load, understood
from bisam_lab.recipe.fields import fields, full_name

NETS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width): super().__init__()

class Base(nn.Sequential):
    def __init__(self, num_classes): super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))

{more}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with pictures, texts, networks, and a study."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures/cats", "pictures/dogs", "studies/old", "split", "tables"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("texts.csv", "split/train.tsv", "tables/a.csv", "tables/b.csv"):
        (tmp_path / name).write_text("text,label\n")
    (tmp_path / "studies" / "old" / "recipe.yaml").write_text("name: old\n")
    (tmp_path / "net.py").write_text(NETS.format(more=""))
    (tmp_path / "nets.py").write_text(NETS.format(more="class Net(Base): pass\ndef make(*, num_classes): pass"))
    (tmp_path / "broken.py").write_text("class Net(")
    (tmp_path / "read.py").write_text("def films(data_dir, size=3): pass\ndef _helper(x): pass\n")
    (tmp_path / "opt.py").write_text("def mine(params, lr): pass\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("pictures/", "own data.name=folder:pictures"),
        ("pictures", "own data.name=folder:pictures"),
        ("folder:pictures", "own data.name=folder:pictures"),
        ("nowhere/", "own data.name=folder:nowhere"),  # the data say that it is not there
        ("texts.csv", "own-texts data.name=text:texts.csv"),
        ("split", "own-texts data.name=text:split"),
        ("data=folder:pictures", "own data.name=folder:pictures"),
        ("data=pictures epochs=2", "own data.name=folder:pictures train.epochs=2"),
        ("--dataset=texts.csv", "own-texts data.name=text:texts.csv"),
        ("data=cifar10", "own data.name=cifar10"),
        ("model.name=net.py data=digits", "own model.name=net.py:Base data.name=digits"),
        ("digits model=resnet-56", "digits model.name=resnet-56"),
        ("data=read.py", "own data.name=read.py:films"),
        ("texts.csv model=hf:x pretrained=true", "own-texts model.options={} data.name=text:texts.csv "
         "model.name=hf:x model.pretrained=true"),
        ("lr=0.1 digits", "digits train.lr=0.1"),
        ("--lr=0.1", "digits train.lr=0.1"),
        ("digits --batch-size=8", "digits train.batch_size=8"),
        ("digits rho=0.2 radii.bisam-log=1", "digits sharpness.rho=0.2 sharpness.radii.bisam-log=1"),
        ("methods=sgd,sam", "digits methods=[sgd,sam]"),
        ("optimizer=adam", "digits methods=[adam,sam,bisam-tanh,bisam-log] train.optimizer=adam"),
        ("optimizer=opt.py", "digits methods=[plain,sam,bisam-tanh,bisam-log] train.optimizer=opt.py:mine"),
    ],
)  # fmt: skip
def test_what_has_one_meaning_is_read(words, read, here):
    found = understood(words.split()[0], words.split()[1:])
    assert str(found) == read
    assert found.guessed


@pytest.mark.parametrize(
    "words", ["digits", "mine.yaml", "digits train.lr=0.1", "train.lr=0.1", "table1-cifar10 'x=1 2'", "digits name=x"]
)
def test_what_is_written_in_full_stays_as_it_is(words, here):
    first, *rest = words.split(" ", 1)
    assert not understood(first, rest).guessed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("svhn", "'svhn' is no recipe: a data set is data.name=svhn"),
        ("net.py:Net", "'net.py:Net' is no recipe: a network is model.name=net.py:Net"),
        ("sam", "'sam' is no recipe: a method is methods=sam"),
        ("digits sgd,bisam-log@mu=5+asam", "a method is methods=sgd,bisam-log@mu=5+asam"),
        ("resnet-56", "'resnet-56' is no recipe: a network is model.name=resnet-56"),
        ("cat.jpg", "cat.jpg is one picture: name the folder"),
        ("studies/old", "the folder of a study, not of data: bisam compare studies/old/recipe.yaml --out studies/old"),
        ("tables", "tables holds 2 tables: name one, such as data.name=text:tables/a.csv"),
        ("digits pictures/", "'pictures/' stands beside 'digits': data are data.name=folder:pictures"),
        ("digits 0.1", "'0.1' stands beside 'digits': any field is FIELD=VALUE, such as train.lr=0.05"),
        ("model=nets.py", "3 classes or functions take num_classes: write model.name=nets.py:Base or "
         "model.name=nets.py:Net or model.name=nets.py:make"),
        ("model=opt.py", "model.name=opt.py: no class or function takes num_classes; it has mine"),
        ("model=none.py", "there is no file none.py; paths start at the working directory"),
        ("model=broken.py", "broken.py, line 1 is not valid Python"),
        ("data=net.py", "no class or function takes one argument, the folder of the data; it has Block, Base"),
    ],
)  # fmt: skip
def test_the_rest_is_answered_with_the_line_to_write(words, said, here):
    with pytest.raises(RecipeError) as caught:
        understood(words.split()[0], words.split()[1:])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 190


def test_a_short_name_is_that_of_one_field():
    for name in fields():
        assert full_name(name) == name
        short = name.rpartition(".")[2]
        assert full_name(short) in (name, short if short in fields() else None)
    assert full_name("options") is None
    assert full_name("weight-decay") == "train.weight_decay"
    with pytest.raises(RecipeError, match=r"did you mean model\.options or sharpness\.options\?"):
        load("digits", ["options.width=3"])


@pytest.mark.parametrize("name", ["model.name", "train.optimizer"])
def test_a_file_that_a_recipe_names_alone_is_answered(name):
    with pytest.raises(RecipeError, match=rf"{name}: 'net\.py' is a file: name its class or function, net\.py:NAME"):
        load("digits", [f"{name}=net.py"])


def said_by(capsys, monkeypatch, *args):
    """(What is read, what is wrong): what a command gives to the laboratory, which reads nothing here."""

    def heard(recipe, overrides, smoke):
        raise RecipeError(" ".join([recipe, *overrides]))

    monkeypatch.setattr("bisam_lab.recipe.load", heard)
    monkeypatch.setattr(sys, "argv", ["bisam", *args])
    with pytest.raises(SystemExit):
        bisam_lab.main()
    said = " ".join(capsys.readouterr().err.split())
    return said.partition("error: ")[::2]


@pytest.mark.parametrize("command", ["compare", "train", "tune", "rho-range", "bench"])
def test_each_command_reads_them_and_says_how(command, here, capsys, monkeypatch):
    args = ["pictures/", "--epochs", "2", "--model", "net.py", "--lr=0.1", "-lr", "-1", "--pretrained"]
    told, error = said_by(capsys, monkeypatch, command, *args)
    words = "own data.name=folder:pictures train.epochs=2 model.name=net.py:Base train.lr=0.1 train.lr=-1 "
    assert told.strip() == f"Read as: {words}model.pretrained=true"
    assert error.startswith(f"{words}model.pretrained=true")
    told, error = said_by(capsys, monkeypatch, command, "digits", "train.lr=0.1", "--data-dir", "--lr")
    assert (told, error[:19]) == ("", "digits train.lr=0.1"), "what is written in full is not told, nor a value taken"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["compare", "--lr"], "--lr has no value: write it as --lr VALUE, or train.lr=VALUE"),
        (["compare", "--method", "sam"], "bisam compare has no --method: write --methods sgd,sam"),
        (["compare", "--seed", "1"], "bisam compare has no --seed: --seeds N says how many"),
        (["tune", "--methods", "sam"], "bisam tune has no --methods: write --method sam"),
        (["rho-range", "--seeds", "1"], "bisam rho-range has no --seeds: write --seed N"),
        (["bench", "--seed", "1"], "bisam bench has no --seed: a bench measures time"),
        (["train", "--workers", "3"], "data.workers=N says how many processes decode pictures, --jobs N"),
        (["compare", "--output", "x"], "bisam compare has no --output: did you mean --out?"),
        (["compare", "--foo", "x"], "bisam compare has no --foo. bisam compare --help lists its options"),
    ],
)
def test_an_option_that_is_none_is_answered(args, said, capsys, monkeypatch):
    assert said in said_by(capsys, monkeypatch, *args)[1]
