"""The method around the base optimizer, with the recipe's radius and numbers."""

import pytest

from bisam_lab.models import ResNet
from bisam_lab.recipe import load
from bisam_lab.run.optimizer import build_optimizer


def test_the_recipe_says_how_far_and_with_which_numbers():
    recipe = load("digits", ["sharpness.rho=0.3", "sharpness.mu=5", "sharpness.options.looksam.k=3"])
    sgd, sam, tanh, asam, looksam = (
        build_optimizer(m, recipe, ResNet(8, 1, 10, width=2), 6, 10)
        for m in ("sgd", "sam", "bisam-tanh", "asam", "looksam")
    )
    assert [opt.param_groups[0]["rho"] for opt in (sgd, sam, tanh, asam)] == [0, 0.3, 0.3, 1.0]
    assert "TanhBound" in repr(tanh)
    assert "mu=5.0" in repr(tanh)
    assert looksam.estimator.cadence.k == 3
    with pytest.raises(ValueError, match="adam"):
        build_optimizer("adam", recipe, ResNet(8, 1, 10, width=2), 6, 10)
