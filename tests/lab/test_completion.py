"""What the shell offers, asked without a shell."""

from types import SimpleNamespace

import pytest

from bisam_lab.cli.completion import complete_field, complete_method, complete_name, complete_recipe
from bisam_lab.recipe import load
from bisam_lab.recipe.fields import fields
from bisam_lab.registry.method_names import METHOD_NAMES
from bisam_lab.registry.methods import names


def offered(words, incomplete):
    """Of a command's finished words and the one that is being written."""
    recipe, *overrides = words or [None]
    context = SimpleNamespace(params={"recipe": recipe, "overrides": overrides})
    return [offer for offer, _ in complete_field(context, incomplete)]


def test_the_methods_are_the_librarys():
    assert list(METHOD_NAMES) == names()


@pytest.mark.parametrize(
    ("incomplete", "offers"),
    [
        ("looks", ["looksam"]),
        ("sgd,sa", ["sgd,sam", "sgd,samon"]),
        ("bisam-log+asa", ["bisam-log+asam"]),
        ("sgd,sam,bisam-log+fish", ["sgd,sam,bisam-log+fishersam"]),
        ("zz", []),
    ],
)
def test_methods_are_offered_one_by_one(incomplete, offers):
    assert complete_method(incomplete) == offers


def test_a_method_that_is_named_is_not_offered_again():
    assert "sgd,sgd" not in complete_method("sgd,")
    assert "sgd,sam" in complete_method("sgd,")


@pytest.mark.parametrize(
    ("words", "incomplete", "offers"),
    [
        (["digits"], "train.l", ["train.lr=", "train.label_smoothing="]),
        (["digits"], "train.schedule=co", ["train.schedule=cosine", "train.schedule=constant"]),
        (["digits"], "model.pretrained=", ["model.pretrained=true", "model.pretrained=false"]),
        (["digits"], "train.lr=", []),
        (["digits"], "nothing=", []),
        (["digits", "train.schedule", "="], "co", ["cosine", "constant"]),  # bash splits the word at its =
        (["digits", "train.schedule"], "", ["cosine", "step", "linear", "constant"]),
        (["train.schedule", "="], "st", ["step"]),
        (["digits", "train.schedule", "=", "step"], "train.ep", ["train.epochs="]),
        (["digits", "train.optimizer", "="], "adamw", ["adamw"]),
        (["digits"], "data.name=cifar1", ["data.name=cifar10", "data.name=cifar100"]),
    ],
)
def test_fields_and_their_values_are_offered(words, incomplete, offers):
    assert sorted(offered(words, incomplete)) == sorted(offers)


def test_every_field_is_offered_and_can_be_set():
    assert offered(["digits"], "") == [f"{name}=" for name in fields()]
    for offer in offered(["digits"], "train.schedule="):
        assert load("digits", [offer]).train.schedule == offer.partition("=")[2]


def test_the_first_word_is_a_recipe_or_a_field():
    assert complete_recipe("own") == complete_name("own") == ["own", "own-texts"]
    assert complete_recipe("train.epo") == ["train.epochs="]
    assert complete_recipe("") == complete_name("")
