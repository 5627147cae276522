"""A run that audits look at."""

import pytest

from bisam_lab.recipe import load
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell
from tests.lab.test_cli import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two epochs that has kept its weights before the first and after each."""
    folder = tmp_path_factory.mktemp("run") / "seed-3"
    recipe = load("digits", [*TINY, "methods=[bisam-log]", "seeds=1", "first_seed=3"])
    run_cell(recipe, Run("", 3, "bisam-log"), folder, keep=True, keep_every=1)
    (folder / "run.yaml").write_text(recipe.to_yaml())
    return folder
