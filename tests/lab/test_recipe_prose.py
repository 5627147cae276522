"""What the shipped recipes say about themselves: each number in a comment or a description is the one that runs."""

import re
from pathlib import Path

import pytest
import yaml
from sklearn.datasets import load_digits

from bisam.bounds import BOUNDS
from bisam_lab.datasets.registry import SETS
from bisam_lab.recipe import differences, load, names, text, variant
from bisam_lab.recipe.known import AS_CODE
from bisam_lab.registry.methods import Method

_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBER = rf"\b(\d[\d.]*\d|\d|{'|'.join(_WORDS)})"
#: Numbers of other people's experiments, and what other tests check: test_folders.py, test_splits.py.
_OTHERS = re.compile(r"command for a ResNet-18 on CIFAR|on one GPU|a fifth of each class|A tenth of the rest")
#: Names that hold a number.
_NAMES = re.compile(r"CIFAR-100?N?|ImageNet-1K|ViT-B/16|table[12]-[\w-]+")


def value(word):
    return float(_WORDS.index(word) + 1 if word in _WORDS else word)


def settings(recipe):
    """Return the recipe of each variant, or the recipe itself."""
    return [variant(recipe, name) for name in recipe.variants or [""]]


def radii(recipe):
    options = recipe.sharpness.options
    methods = [Method(name, options) for name in recipe.methods]
    return {method.radius(recipe.sharpness.rho, recipe.sharpness.radii) for method in methods if not method.plain}


def counts(recipe):
    return SETS[recipe.data.name].counts


def split(recipe, *thousands):
    pool, test, _ = counts(recipe)
    held_out = recipe.data.validation_size
    return [pool - held_out, held_out, test] == [1000 * number for number in thousands]


def on(recipe, radius, name):
    """Say whether that is the radius in the variant whose data set has that name."""
    found = [radii(own) for own in settings(recipe) if own.data.name == name.lower().replace("-", "")]
    return found == [{radius}]


def levels(recipe):
    return [100 * own.data.label_noise for own in settings(recipe) if own.data.noise == "symmetric"]


def esam(recipe):
    """Return beta and gamma of every method of the recipe, as the run's own code reads them."""
    found = [Method(name, recipe.sharpness.options) for name in recipe.methods]
    return {m.choices(1, 1)["geometry"].beta for m in found}, {m.sharpest_samples.gamma for m in found}


#: What a sentence says, and whether it is true of a recipe.
CLAIMS = {
    r"arXiv (\d+\.\d+)": lambda r, paper: paper == "2407.12993",
    rf"Table {_NUMBER}": lambda r, k: r.name.startswith(f"table{k}-"),
    r"ResNet-(\d+)": lambda r, n: any(re.search(rf"resnet-?{n}\b", own.model.name) for own in settings(r)),
    rf"{_NUMBER} networks": lambda r, n: len({own.model.name for own in settings(r)}) == value(n),
    r"(\d+)k/(\d+)k/(\d+)k split": lambda r, *n: split(r, *map(value, n)),
    r"one split for all": lambda r: r.data.split_seed is not None,
    rf"{_NUMBER} (?:seeds|runs)": lambda r, n: r.seeds == value(n),
    rf"{_NUMBER} epochs": lambda r, n: r.train.epochs == value(n),
    rf"batch {_NUMBER}": lambda r, n: r.train.batch_size == value(n),
    rf"label smoothing {_NUMBER}": lambda r, s: r.train.label_smoothing == value(s),
    rf"(?:radius(?: of)?|rho) {_NUMBER}": lambda r, rho: all(radii(own) == {value(rho)} for own in settings(r)),
    rf"mu {_NUMBER}": lambda r, mu: r.sharpness.mu == value(mu),
    rf"beta {_NUMBER}": lambda r, beta: esam(r)[0] == {value(beta)},
    rf"gamma {_NUMBER}": lambda r, gamma: esam(r)[1] == {value(gamma)},
    rf"{_NUMBER} on (CIFAR-100?)": lambda r, rho, data: on(r, value(rho), data),
    r"rho was chosen among ([\d.]+), ([\d.]+) and ([\d.]+)": lambda r, *n: radii(r) <= set(map(value, n)),
    r"a third of the training set": lambda r: r.data.train_size == round(counts(r)[0] / 3),
    rf"{_NUMBER} for each 256 images": lambda r, lr: r.train.lr == value(lr) * r.train.batch_size / 256,
    rf"{_NUMBER} % of the training labels": lambda r, n: 100 * r.data.label_noise == value(n),
    rf"from {_NUMBER} to {_NUMBER} %": lambda r, a, b: [min(levels(r)), max(levels(r))] == [value(a), value(b)],
    rf"{_NUMBER} x {_NUMBER} handwritten": lambda r, h, w: load_digits().images[0].shape == (value(h), value(w)),
    rf"{_NUMBER} Fashion-MNIST images": lambda r, n: r.data.train_size == value(n),
    rf"{_NUMBER} of GLUE's tasks": lambda r, n: len(r.variants) == value(n),
    rf"{_NUMBER} classes": lambda r, n: counts(r)[2] == value(n),
    r"cosine": lambda r: r.train.schedule == "cosine",
    r"moves by epochs": lambda r: r.train.schedule_by == "epoch",
    r"padded with black": lambda r: r.data.pad == "black",
    r"over the wrong classes alone": lambda r: r.train.smoothing_over == "wrong",
    r"crop, flip and cutout": lambda r: r.data.augment == "crop-flip-cutout",
    r"crop and flip": lambda r: r.data.augment == "crop-flip",
    r"at half size": lambda r: r.data.image_size == 28 / 2,
    r"as it is printed|as printed": lambda r: "as-code" not in r.to_yaml() and r.sharpness.mu is None,
    r"All bounds of the library": lambda r: {Method(m, {}).bound for m in r.methods} - {None} == set(BOUNDS),
    r"SAM as the baseline": lambda r: r.methods[0] == "sam",
}


def prose(content):
    """Return a recipe's comments without the commands in them, and its description, as one line."""
    comments = [line[2:] for line in content.splitlines() if line.startswith("# ") and not line.startswith("#  ")]
    return " ".join([*comments, yaml.safe_load(content)["description"]])


def faults(content, recipe):
    """Return what the prose says and the recipe does not do, and the numbers that no claim explains."""
    rest, wrong = _OTHERS.sub("_", prose(content)), []
    for claim, holds in CLAIMS.items():
        wrong += [found[0] for found in re.finditer(claim, rest) if not holds(recipe, *found.groups())]
    for known in (*CLAIMS, _NAMES.pattern):
        rest = re.sub(known, "_", rest)
    return wrong + re.findall(rf"(?<![A-Za-z]){_NUMBER}(?![A-Za-z])", rest)


@pytest.mark.parametrize("name", names())
def test_a_recipe_does_what_it_says(name):
    assert faults(text(name), load(name)) == []


@pytest.mark.parametrize("name", names())
def test_commands_in_comments_name_what_there_is(name):
    for line in re.findall(r"^#   bisam (.+)", text(name), re.MULTILINE):
        chosen = re.search(r"--variants (\S+)", line)
        assert set(chosen[1].split(",") if chosen else []) <= set(load(name).variants)
        assert name in line.split() or line.startswith("data fetch ") or name in ("own", "own-texts")


@pytest.mark.parametrize("table", [("table1-cifar10", "table1-as-code"), ("table2-cifar100", "table2-as-code")])
def test_the_page_lists_all_that_differs_between_a_table_as_printed_and_as_its_code(table):
    told = dict(re.findall(r"`([a-z]+\.[a-z_.]+)=([^`]+)`", _differences_on_the_page()))
    printed, code = (settings(load(name)) for name in table)
    options = {key: value for own in code for key, value in AS_CODE[own.model.name].items()}
    found = {f"model.options.{key}": str(value) for key, value in options.items()}
    assert [own.model.name + "-as-code" for own in printed] == [own.model.name for own in code]
    for key, _, value in differences(*(own[0].model_dump(mode="json") for own in (printed, code))):
        if key not in ("name", "description", "model.name"):
            found[key] = (
                "[...]" if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
            )
    assert found == told


def _differences_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "lab" / "reproduce.md").read_text()
    return page.partition("| the option |")[2].partition("\n\n")[0]


@pytest.mark.parametrize(
    ("name", "true", "false"),
    [
        ("combine-esam", "beta 0.6", "beta 0.5"),
        ("combine-esam", "gamma 0.5", "gamma 0.6"),
        ("combine-esam", "rho 0.05", "rho 0.1"),
        ("combine-asam", "1.0 on CIFAR-100", "0.5 on CIFAR-100"),
        ("table1-cifar10", "six seeds", "five seeds"),
        ("table1-cifar10", "45k/5k/10k", "50k/5k/10k"),
        ("table1-cifar10", "weeks on one GPU", "about two weeks on one GPU"),
        ("table1-as-code", "mu 1 ", "mu 10 "),
        ("imagenet", "90 epochs", "100 epochs"),
        ("noisy-labels", "80 %", "90 %"),
        ("cifar10", "crop and flip", "crop, flip and cutout"),
    ],
)
def test_a_false_number_is_found(name, true, false):
    content = text(name).replace("\n# ", " ")
    assert true in content
    false = content.replace(true, false).replace("name: ", "\nname: ", 1)
    assert faults(false, load(name)) != []
