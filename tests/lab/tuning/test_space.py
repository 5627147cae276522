"""What is searched for a method, and in which ranges."""

import pytest

from bisam_lab.recipe import load
from bisam_lab.tuning.space import Space


@pytest.mark.parametrize(
    ("method", "given", "names"),
    [
        ("sam", {}, ["rho"]),
        ("bisam-log", {}, ["rho", "mu"]),
        ("bisam-tanh+asam", {}, ["rho", "mu", "alpha"]),
        ("bisam-tanh@mu=5", {}, ["rho", "alpha"]),
        ("sam@rho=0.1", {"tune_lr": True}, ["lr"]),
        ("sgd", {"tune_lr": True}, ["lr"]),
        ("sgd", {"given": ["train.weight_decay=1e-5:1e-2:log"]}, ["train.weight_decay"]),
        ("sam", {"given": ["lr=0.01:1:log", "train.batch_size=16:128"]}, ["rho", "lr", "train.batch_size"]),
    ],
)
def test_a_method_is_searched_by_what_it_has(method, given, names):
    recipe = load("digits")
    space = Space.of(recipe, method, **given)
    assert [dimension.name for dimension in space] == names
    assert space.apply(recipe, space.default).sharpness.rho == recipe.sharpness.rho
    for dimension in space:
        assert dimension.low < dimension.default < dimension.high
        for value in (dimension.low, dimension.high):
            assert space.apply(recipe, {**space.default, dimension.name: value}) != recipe


def test_ranges_lie_around_the_published_values_and_the_recipes_own():
    (rho,) = Space.of(load("digits", ["sharpness.rho=0.05", "sharpness.radii={}"]), "asam")
    assert (rho.low, rho.high, rho.default) == (0.5 / 8, 0.5 * 8, 0.5)
    (rho,) = Space.of(load("digits", ["sharpness.rho=0.4"]), "sam")
    assert (rho.low, rho.high) == (0.05 / 8, 1.6)
    assert [rho.border(value) for value in (0.0063, 0.1, 1.5)] == ["lower", None, "upper"]
    tuned = Space((rho,)).apply(load("digits"), {"rho": 0.123})
    assert tuned.sharpness.radii["sam"] == 0.123
