"""Recipes: validation, overrides, and errors that name the nearest right thing."""

import re

import pytest

from bisam_lab.recipe import RecipeError, load, names, only, settings, variant
from bisam_lab.recipe.fields import fields

PAPER = [
    "table1-cifar10",
    "table2-cifar100",
    "table1-as-code",
    "table2-as-code",
    "imagenet",
    "finetune-flowers",
    "finetune-pets",
    "glue",
    "noisy-labels",
]
PAPER += ["combine-asam", "combine-esam", "lower-bounds", "sam-baseline", "bisam-tanh", "bisam-log"]


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_is_valid_described_and_has_a_smoke_size(name):
    for smoke in (False, True):
        recipe = load(name, smoke=smoke)
        assert recipe.name == name
        assert recipe.description
        for key in recipe.variants:
            assert variant(recipe, key).variants == {}
    assert load(name, smoke=True) != load(name)


def test_there_is_a_recipe_for_every_experiment_of_the_paper():
    assert set(PAPER) < set(names())


def test_variants(tmp_path):
    recipe = load("noisy-labels")
    assert variant(recipe, "symmetric-80").data.label_noise == 0.8
    assert list(only(recipe, ["human-worst"]).variants) == ["human-worst"]
    with pytest.raises(RecipeError, match="did you mean symmetric-80"):
        only(recipe, ["symetric-80"])
    with pytest.raises(RecipeError, match="no smoke size"):
        (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
        load(tmp_path / "mine.yaml", smoke=True)


def test_a_recipe_survives_its_own_yaml(tmp_path):
    recipe = load("digits", ["train.lr=0.07", "methods=[sgd, asam]", "data.label_noise=0.25", "sharpness.mu=3"])
    assert (recipe.train.lr, recipe.methods, recipe.data.label_noise) == (0.07, ("sgd", "asam"), 0.25)
    path = tmp_path / "mine.yaml"
    path.write_text(recipe.to_yaml())
    assert load(path) == recipe


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lrr=1", ["train.lrr", "unknown key", "did you mean train.lr=1?"]),
        ("trian.lr=1", ["trian", "did you mean train?"]),
        ("lr=1", ["lr", "did you mean train.lr=1?"]),
        ("train.zzzzz=1", ["train.zzzzz", "it may have", "epochs"]),
        ("train.lr=-1", ["train.lr=-1", "greater than 0"]),
        ("train.epoch=2", ["train.epoch: unknown key: did you mean train.epochs=2?"]),
        ("train.lr.x=1", ["train.lr.x does not exist"]),
        ("data.label_noise=1", ["data.label_noise=1", "less than 1"]),
        ("data.name=cifar11", ["data.name: 'cifar11'", "did you mean cifar10?"]),
        ("methods=[sgd,bisam-lgo]", ["bisam-lgo", "did you mean bisam-log?"]),
        ("methods=[sgd,sgd]", ["names a method twice"]),
        ("methods=[sgd,gsam+wsam]", ["methods", "both choose the combination"]),
        ("sharpness.radii.asma=1", ["sharpness.radii", "did you mean asam?"]),
        ("sharpness.radii.asam=-1", ["sharpness.radii.asam=-1", "greater than or equal to 0"]),
        ("sharpness.options.esam.beta=x", ["sharpness.options", "beta='x' must be a number"]),
        ("sharpness.options.looksam.m=2", ["sharpness.options", "looksam takes k, alpha"]),
        ("methods=[]", ["methods=[]: must be a list with something in it"]),
        ("data.pad=black", ["pad=black has no effect without a crop", "augment=crop-flip"]),
        ("data.mean=[0.5]", ["mean=(0.5,) and std=None go together"]),
        ("data.split_seed=-1", ["data.split_seed=-1"]),
        ("model.name=resnet20", ["model.name", "did you mean resnet-20?"]),
        ("model.name=vgg19-as-code", ["model.name", "did you mean vgg19-bn-as-code?"]),
        ("model.name=wrn-16-8-as-code", ["no network of the authors' code", "wrn-16-8", "model.options.init=as-code"]),
        ("data.name=glue:colla", ["glue:colla", "did you mean cola?"]),
        ("train.lr", ["must look like train.lr=0.05"]),
        ("train.lr={", ["not valid YAML"]),
        ("seeds=0", ["seeds=0", "greater than or equal to 1"]),
    ],
)
def test_errors(override, words):
    with pytest.raises(RecipeError) as caught:
        load("digits", [override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("wrong", ["nan", "1e999", "abc", "2.5"])
def test_every_line_that_an_error_suggests_for_a_plain_value_is_taken(wrong):
    suggested = 0
    for field in fields():
        try:
            load("digits", [f"{field}={wrong}"])
        except RecipeError as error:
            line = re.search(rf"must be a \S*\s?(?:number|text), such as ({re.escape(field)}=\S+)", str(error))
            if line is not None:
                load("digits", [line[1]])
                suggested += 1
    assert suggested


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=2.5", "train.epochs=2.5: must be a whole number, such as train.epochs=20"),
        ("train.epochs=", "train.epochs=None: must be a whole number, such as train.epochs=20"),
        ("train.epochs=2001-01-01", "train.epochs='2001-01-01' is a date: put it in quotes to make it a text"),
        ("train.lr=abc", "train.lr='abc': must be a number, such as train.lr=0.1"),
        ("train.lr=.inf", "train.lr=inf must be a finite number"),
        ("train.lr=true", "train: lr=true must be a number"),
        ("data.train_size=yes", "data: train_size=true must be a number"),
        ("sharpness.mu=abc", "sharpness.mu='abc': must be a number, such as sharpness.mu=0.1"),
        ("data=cifar10", "data='cifar10': must be a section of fields, such as data.name=cifar10"),
        ("data=null", "data=None: must be a section of fields, such as data.name=..."),
        ("methods=[1]", "methods.0=1: must be text, such as methods=[sgd,sam,bisam-tanh,bisam-log]"),
        ("methods=sgd", "methods='sgd': must be a list, such as methods=[sgd,sam,bisam-tanh,bisam-log]"),
        ("train.milestones=5", "must be a list, such as train.milestones=[0.5,0.75]"),
        ("model.options=5", "model.options=5: must be a mapping, such as 'model.options={name: value}'"),
        ("model.options={1: 2}", "model.options.1: a name must be text, not 1: write it in quotation marks"),
        ("data={1: 2}", "data: a name must be text, not 1: write it in quotation marks"),
        ("model.pretrained=maybe", "model.pretrained='maybe': must be true or false, such as model.pretrained=false"),
        ("variants={a: {train.lrr: 5}}", "variants.a: train.lrr: unknown key: did you mean train.lr=5?"),
        ("sharpness.options={looksam: 5}", "sharpness.options.looksam=5: must be a mapping"),
    ],
)
def test_errors_are_in_our_own_words(override, said):
    """And one line each, with a line that is right, and nothing of the package that validates."""
    with pytest.raises(RecipeError) as caught:
        load("digits", [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "nput should" not in str(caught.value)


def test_of_many_errors_three_are_told_and_a_long_value_is_cut():
    with pytest.raises(RecipeError) as caught:
        load("digits", ["model={name: 5, options: 5, pretrained: x, checkpoint: 5, a: 1}", f"train.lr={'x' * 500}"])
    *lines, last = str(caught.value).splitlines()
    assert (len(lines), last) == (3, "and 3 more")
    with pytest.raises(RecipeError) as caught:
        load("digits", [f"train.lr={'x' * 500}"])
    assert len(str(caught.value)) < 200


def test_errors_of_files(tmp_path):
    with pytest.raises(RecipeError, match="did you mean fashion-mnist"):
        load("fashion_mnist")
    for text, word in (("[1, 2]", "mapping"), ("a: [", "not valid YAML"), ("smoke: 5", "mapping `smoke:`")):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=word):
            load(path)


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ("{../../up: {}}", "must name a folder inside the study"),
        ("{/tmp/up: {}}", "must name a folder inside the study"),
        ('{"": {train.lr: 1}}', "must name a folder inside the study"),
        ("{a: {seeds: 9}}", "seeds is the study's, not a variant's"),
        ("{a: {methods: [sgd]}}", "methods is the study's, not a variant's"),
    ],
)
def test_variants_that_cannot_be(variants, words):
    with pytest.raises(RecipeError, match=words):
        load("digits", [f"variants={variants}"])


def test_a_recipe_of_an_older_version_had_the_defaults_of_fields_that_came_later():
    now = load("digits", ["train.lr=0.3", "sharpness.radii={sam: 0.2}"]).model_dump(mode="json")
    old = {key: dict(value) if isinstance(value, dict) else value for key, value in now.items()}
    del old["train"]["schedule_by"], old["train"]["smoothing_over"], old["engine"]
    assert settings(old) == settings(now)
    assert settings(now)["train"]["lr"] == 0.3
    assert "seeds" not in settings(now)


def test_an_override_that_every_variant_undoes_is_refused():
    with pytest.raises(
        RecipeError, match=r"'data\.name=text:a\.csv' has no effect: each variant of 'glue' sets data\.name"
    ):
        load("glue", ["data.name=text:a.csv"])
    assert load("glue", ["data.name=text:a.csv", "variants={}"]).data.name == "text:a.csv"
    assert load("glue", ["data.name=glue:rte"]).data.name == "glue:rte"  # one variant is that
    assert load("glue", ["data.metric=f1"]).data.metric == "f1"  # some variants leave it
