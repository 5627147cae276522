"""``benchmarks/evidence.py``: equal budgets, grids that go on at an edge, fresh seeds for the test."""

import csv
import json
import math
import sys
from pathlib import Path

import pytest

from bisam_lab.run.result import Epoch, RunResult

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import evidence
import evidence_settings
from tuned import Contestant

SMALL = (
    Contestant("sgd"),
    Contestant("sgd", 2),
    Contestant("sam"),
    Contestant("asam"),
    Contestant("bisam-log", like="sam"),
)


@pytest.fixture
def fake(monkeypatch):
    """A training that gives the score of a hill, with its top where it is put; it keeps what it was asked for."""
    asked = []

    def trained(recipe, folder, data_dir, jobs, name):
        for seed in range(recipe.first_seed, recipe.first_seed + recipe.seeds):
            for variant, given in recipe.variants.items():
                for method in recipe.methods:
                    rho = float(method.partition("@rho=")[2] or 0)
                    asked.append((folder.name, method, given["train.lr"], seed))
                    score = _hill(given["train.lr"], rho, *TOPS[method.partition("@")[0]])
                    history = [Epoch(1, 0.1, score, passes=1.0 if method == "sgd" else 2.0)]
                    yield RunResult(method, seed, "ok", score, score, 1, 1.0, 1.0, variant=variant, history=history)

    monkeypatch.setattr(evidence, "trained", trained)
    monkeypatch.setitem(evidence.SETTINGS, "small", evidence_settings.Setting("digits", (), SMALL, 2, 3, RADII))
    return asked


RADII = tuple(0.1 * 2.0**power for power in range(6))
#: The best rate and radius of each method: SGD's and ASAM's lie beyond their first grids.
TOPS = {"sgd": (1.0, 0), "sam": (1.0, 0.4), "asam": (2.0, 0.1), "bisam-log": (1.0, 0.4)}


def _hill(rate, rho, best_rate, best_rho):
    off = abs(math.log(rate / best_rate)) + (abs(math.log(rho / best_rho)) if rho else 0)
    return 0.9 - 0.05 * off


@pytest.fixture
def rows(fake, tmp_path):
    found = evidence.Evidence("small", tmp_path, None, 1, []).rows()
    return {f"{row.method}{row.like or ''}{row.epochs:g}": row for row in found}


def test_the_best_rate_and_radius_are_found_beyond_the_first_grid(rows):
    assert rows["sgd1"].rate == pytest.approx(1.0, rel=0.15)
    assert (rows["sam1"].rho, rows["sam1"].at_edge) == (0.4, [])
    assert rows["asam1"].rho == pytest.approx(0.1)
    assert rows["asam1"].rate == pytest.approx(2.0, rel=0.1)
    assert all(row.at_edge == [] for row in rows.values())


def test_budgets_are_equal_but_for_the_way_to_the_edge(rows):
    assert len(rows["sam1"].tried) == 10  # six radii, four rates
    assert len(rows["sgd1"].tried) == len(rows["sgd2"].tried) > 10
    assert len(rows["asam1"].tried) > 10
    assert rows["bisam-logsam1"].tried == []
    assert (rows["bisam-logsam1"].rate, rows["bisam-logsam1"].rho) == (rows["sam1"].rate, rows["sam1"].rho)


def test_the_test_has_seeds_that_no_tuning_has_seen(rows, fake):
    tuning = {seed for folder, *_, seed in fake if folder.startswith("tuning")}
    test = {seed for folder, *_, seed in fake if folder.startswith("test")}
    assert (tuning, test) == ({1000, 1001}, {0, 1, 2})
    assert all(len(row.scores) == 3 for row in rows.values())


def test_a_grid_goes_on_until_the_best_lies_inside_and_ends():
    grid = evidence.Grid({0.1: 0.5, 0.2: 0.6, 0.4: 0.7})
    assert grid.next() == 0.8
    grid.means[0.8] = 0.65
    assert (grid.best, grid.at_edge, grid.next()) == (0.4, False, None)
    falling = evidence.Grid({0.2: 0.7, 0.4: 0.6})
    tried = []
    while (value := falling.next()) is not None:
        tried.append(value)
        falling.means[value] = 1 - value
    assert tried == [0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125]
    assert falling.at_edge
    assert evidence.Grid({0.1: 0.5, 0.2: 0.5}).best == 0.1, "the smaller value wins a tie"


def test_results_are_kept_as_json_and_as_a_table(rows, tmp_path):
    kept = {"seeds": 3, "rows": [evidence.asdict(row) for row in rows.values()]}
    for name in ("small", "digits-40"):
        evidence.keep(tmp_path / "e.json", name, kept)
    assert list(json.loads((tmp_path / "e.json").read_text())) == ["digits-40", "small"]
    table = list(csv.DictReader((tmp_path / "e.csv").read_text().splitlines()))
    assert len(table) == 2 * 5 * 3
    assert table[-1]["tuned_as"] == "sam"
    assert float(table[-1]["test_score"]) == rows["bisam-logsam1"].scores[-1]


def test_every_setting_is_a_recipe_that_can_be_trained():
    for name, setting in evidence_settings.SETTINGS.items():
        recipe = evidence.load(setting.recipe, list(setting.different))
        assert recipe.model.options["norm"] in ("batch", "none"), name
        assert len(setting.radii) == 6
