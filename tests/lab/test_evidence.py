"""``benchmarks/evidence.py``: equal budgets, a joint search that goes on at an edge, fresh seeds for the test."""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisam_lab.run.result import Epoch, RunResult

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import evidence
import evidence_settings
import search
from tuned import Contestant, Setting

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
        (method,) = recipe.methods
        for seed in range(recipe.first_seed, recipe.first_seed + recipe.seeds):
            for variant, fields in recipe.variants.items():
                rate, rho = fields["train.lr"], fields.get("sharpness.radii", {method: 0})[method]
                asked.append((folder.parent.name, method, rate, seed))
                score = _hill(rate, rho, *TOPS[method])
                history = [Epoch(1, 0.1, score, passes=1.0 if method == "sgd" else 2.0)]
                yield RunResult(method, seed, "ok", score, score, 1, 1.0, 1.0, variant=variant, history=history)

    monkeypatch.setattr(evidence, "trained", trained)
    monkeypatch.setitem(evidence.SETTINGS, "small", Setting("digits", (), SMALL, 2, 3, 0.2))
    return asked


#: The best rate and radius of each method. The recipe's rate is 0.1. SGD's and ASAM's lie far beyond what is tried
#: first; BiSAM's large radius pays at its large rate alone.
TOPS = {"sgd": (1.0, 0), "sam": (0.1, 0.4), "asam": (2.0, 0.1), "bisam-log": (0.1, 0.4)}


def _hill(rate, rho, best_rate, best_rho):
    off = abs(math.log(rate / best_rate)) + (abs(math.log(rho / best_rho)) if rho else 0)
    return 0.9 - 0.05 * off


@pytest.fixture
def rows(fake, tmp_path):
    found = evidence.Evidence("small", tmp_path, None, 1, []).rows()
    return {f"{row.method}{row.like or ''}{row.epochs:g}": row for row in found}


def test_the_best_rate_and_radius_are_found_beyond_the_first_grid(rows):
    assert rows["sgd1"].rate == pytest.approx(1.0, rel=0.2)
    assert (rows["sam1"].rate, rows["sam1"].rho, rows["sam1"].at_edge) == (0.1, 0.4, [])
    assert rows["asam1"].rate == pytest.approx(2.0, rel=0.5)
    assert rows["asam1"].rho == pytest.approx(0.1, rel=0.5)
    assert all(row.at_edge == [] for row in rows.values())


def test_budgets_are_equal_but_for_the_way_to_the_edge(rows):
    assert len(rows["sam1"].tried) == search.BUDGET
    assert search.BUDGET <= len(rows["asam1"].tried) <= search.BUDGET + search.BEYOND
    assert len(rows["sgd1"].tried) == len(rows["sgd2"].tried) < search.BUDGET, "one number needs fewer"
    assert rows["bisam-logsam1"].tried == []
    assert (rows["bisam-logsam1"].rate, rows["bisam-logsam1"].rho) == (rows["sam1"].rate, rows["sam1"].rho)


def test_the_finalists_are_decided_on_all_seeds(fake, tmp_path, monkeypatch):
    """The search sees a wrong peak on its two seeds; six more seeds correct it."""
    lucky, trained = evidence.Evidence("small", tmp_path, None, 1, []), evidence.trained

    def with_luck(recipe, *rest):
        for run in trained(recipe, *rest):
            luck = {"lr-0.1-rho-0.2": 0.06, "lr-0.1-rho-0.4": -0.01}.get(run.variant, 0) if run.seed < 1002 else 0
            yield replace(run, validation_score=run.validation_score + luck)

    monkeypatch.setattr(evidence, "trained", with_luck)
    tuned = lucky.tune(Contestant("sam"))
    assert tuned.search.best(1) == [(0.1, 0.2)]
    assert tuned.best == (0.1, 0.4)
    assert tuned.finals[0.1, 0.4] == pytest.approx(0.9 - 0.01 * 2 / 8)
    assert len(tuned.finals) == evidence.FINALISTS


def test_the_test_has_seeds_that_no_tuning_has_seen(rows, fake):
    tuning = {seed for folder, *_, seed in fake if folder.startswith("tuning")}
    test = {seed for folder, *_, seed in fake if folder.startswith("test")}
    finals = {seed for folder, *_, seed in fake if folder.startswith("finals")}
    assert (tuning, finals, test) == ({1000, 1001}, {*range(1002, 1008)}, {0, 1, 2})
    assert all(len(row.scores) == 3 for row in rows.values())


def test_a_radius_that_pays_at_another_rate_alone_is_found():
    """Two hills: a small rate with a small radius, and a higher one, a large rate with a large radius."""

    def score(rate, rho):
        return max(0.8 + _hill(rate, rho, 0.0125, 0.0125), 0.85 + _hill(rate, rho, 0.1, 0.4)) - 0.9

    best_at_small_rate = max((2.0**power for power in range(-7, 3)), key=lambda rho: score(0.0125, rho))
    assert best_at_small_rate < 0.05, "who tunes the radius at the small rate gets a small one"
    assert searched(score, 0.025, 0.2).best(1) == [(0.1, 0.4)]


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-0.6, 0.6))
def test_the_top_of_a_smooth_hill_is_found(rate, rho, tilt):
    """Properties: no point twice, no more than the budget but at an edge, the best is near the top."""

    def score(x, y):
        off, up = math.log2(x / 0.1) - rate, math.log2(y / 0.2) - rho
        return -(off**2 + up**2 + 2 * tilt * off * up)

    found = searched(score, 0.1, 0.2)
    assert search.BUDGET <= len(found.means) <= search.BUDGET + search.BEYOND
    (best,) = found.best(1)
    assert found.means[best] == max(found.means.values())
    assert math.dist([math.log2(best[0] / 0.1), math.log2(best[1] / 0.2)], [rate, rho]) < 2


def test_an_edge_that_never_ends_is_told():
    found = searched(lambda x, y: -abs(math.log2(y)) + math.log2(x), 1.0, 1.0)
    assert len(found.means) == search.BUDGET + search.BEYOND
    assert found.at_edge(*found.best(1)) == (True, False)


def test_one_number_is_searched_down_to_the_finest_step_and_the_smaller_value_wins_a_tie():
    assert searched(lambda x: min(0.5, x), 1.0).best(2) == [(0.5,), (0.5946,)]
    inside = searched(lambda x: -abs(math.log2(x) - 1), 1.0)
    assert sorted(x for (x,) in inside.means) == [0.25, 0.5, 1.0, 1.414, 1.682, 2.0, 2.378, 2.828, 4.0]
    assert inside.at_edge((2.0,)) == (False,)


def searched(score, *middle):
    found = search.Search(*middle)
    while asked := found.next():
        assert not set(asked) & set(found.means)
        found.tell({point: score(*point) for point in asked})
    return found


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
        assert setting.radius > 0
