"""``bisam rho-range``: less than an epoch, and the words to type next."""

import json
import math
import re

import pytest

from bisam_lab import recipe as recipes
from bisam_lab.recipe import RecipeError
from bisam_lab.tuning.rho_range import advise
from tests.lab.test_cli import bisam

SMALL = ["model.options.width=2", "data.validation_size=50"]


@pytest.mark.parametrize("method", ["sam", "asam", "bisam-tanh"])
@pytest.mark.parametrize(("size", "batch"), [(200, 12), (500, 8)])
def test_the_whole_test_costs_less_than_an_epoch(method, size, batch):
    recipe = recipes.load("digits", [*SMALL, f"data.train_size={size}", f"train.batch_size={batch}"])
    advice = advise(recipe, method)
    assert advice.epoch == math.ceil(size / batch)
    assert advice.warmup >= 1
    assert advice.passes < advice.epoch
    assert advice.range.batches >= 2
    assert advice == advise(recipe, method), "the same seed gives the same advice"


def test_an_epoch_that_is_too_short_says_what_would_do():
    with pytest.raises(RecipeError, match=r"14 batches do"):
        advise(recipes.load("digits", [*SMALL, "data.train_size=120", "train.batch_size=12"]), "sam")
    enough = recipes.load("digits", [*SMALL, "data.train_size=168", "train.batch_size=12"])
    assert advise(enough, "sam").passes < 14


@pytest.mark.parametrize(
    ("recipe", "given", "words"),
    [("digits", "sharpness.rho=0", "rho=0 in every"), ("cifar10", "seeds=1", "--data-dir")],
)
def test_what_cannot_be_swept_is_one_sentence(recipe, given, words):
    with pytest.raises(RecipeError, match=words):
        advise(recipes.load(recipe, [*SMALL, given]), "sam")


def test_the_command_prints_the_curve_and_what_to_type_next(tmp_path):
    done = bisam("rho-range", "--method", "asam", "--label-noise", "0.2", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "start here" in done.stdout
    assert re.search(r"1[0-5] in all where an epoch has 16\.", done.stdout), done.stdout
    commands = [line.split() for line in done.stdout.splitlines() if line.startswith("  bisam compare")]
    assert commands
    for command in commands:
        recipe = recipes.load("digits", [word for word in command if "=" in word])
        assert recipe.data.label_noise == 0.2
        assert recipe.model.options == {"width": 2}
    assert not list(tmp_path.iterdir()), "it leaves no files"

    plain = bisam("rho-range", "--method", "asam", "--label-noise", "0.2", "--json", *SMALL, cwd=tmp_path)
    found = json.loads(plain.stdout)
    first = [float(word.partition("=")[2]) for word in commands[0] if word.startswith("sharpness.radii.asam=")]
    assert first == [found["range"]["suggestion"]]
    assert found["passes"] < found["epoch"] == 16


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--method", "sgd"], "has no radius"),
        (["--method", "sma"], "did you mean sam?"),
    ],
)
def test_errors_are_one_sentence_and_code_2(args, words, tmp_path):
    done = bisam("rho-range", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
