"""Recipes: validation, overrides, and errors that name the nearest right thing."""

import pytest

from bisam_lab.recipe import RecipeError, load, names, only, settings, variant

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
        ("train.lrr=1", ["train.lrr", "unknown key", "did you mean lr?"]),
        ("trian.lr=1", ["trian", "did you mean train?"]),
        ("lr=1", ["lr", "did you mean train.lr?"]),
        ("train.zzzzz=1", ["train.zzzzz", "it may have", "epochs"]),
        ("train.lr=-1", ["train.lr=-1", "greater than 0"]),
        ("train.epochs=2.5", ["train.epochs=2.5", "integer"]),
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
        ("methods=[]", ["methods"]),
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


def test_errors_of_files(tmp_path):
    with pytest.raises(RecipeError, match="did you mean fashion-mnist"):
        load("fashion_mnist")
    for text, word in (("[1, 2]", "mapping"), ("a: [", "not valid YAML")):
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
