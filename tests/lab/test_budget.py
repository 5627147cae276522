"""Methods compared at equal cost: what each may spend, which runs follow from it, and what the table says."""

import json
import math
import re
from concurrent.futures.process import BrokenProcessPool

import pytest

from bisam_lab import recipe as recipes
from bisam_lab.bench.budget import step_costs
from bisam_lab.budget import Budget, Share
from bisam_lab.recipe import RecipeError
from bisam_lab.report import collect, render
from bisam_lab.report.summary import markdown, write_summary
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run
from bisam_lab.run.train import train
from bisam_lab.statistics import compare, verdict
from bisam_lab.statistics.by_variant import compare_variant, outcomes
from bisam_lab.study.cell import run_cell
from bisam_lab.study.files import read_budget, read_results
from bisam_lab.study.folder import Study

from .report import folders
from .run.runs import StopAfter
from .statistics.results import run
from .test_cli import TINY, bisam, in_process

SMALL = [*TINY, "train.epochs=3", "train.batch_size=16"]
COSTS = {"sgd": 1.0, "looksam": 1.2, "sam": 2.0}
BUDGET = Budget("passes").extended("", 20, COSTS)


def small(methods, *given, seeds=1):
    return recipes.load("digits", [*SMALL, f"methods=[{methods}]", f"seeds={seeds}", *given])


def at_cost(method, seed, score, **kwargs):
    return run(method, seed, score, **kwargs).__class__(
        **{**vars(run(method, seed, score, **kwargs)), "equal_cost": True}
    )


@pytest.mark.parametrize(
    ("cost", "epochs"),
    [(1.0, 40), (1.2, 33), (1.5 + 1 / 3, 22), (2.0, 20), (1.95, 20), (2.08, 20), (1.9, 21), (3.0, 13), (100.0, 1)],
)
def test_every_method_spends_what_the_dearest_one_does(cost, epochs):
    """20 epochs of 2 passes are 40. Costs within 5 % count as the same, and a dearer method joins with fewer epochs."""
    share = BUDGET.extended("", 20, {"new": cost}).shares[""]
    assert share.total == 40
    assert share.epochs_of("new") == epochs
    assert share.differs("new") == (epochs != 20)


def test_what_is_stored_is_never_changed_by_what_joins():
    later = BUDGET.extended("", 20, {"sam": 5.0, "bisam-log+gsam": 3.0})
    assert later.shares[""].costs == {**COSTS, "bisam-log+gsam": 3.0}
    assert later.shares[""].total == 40
    assert later.missing("", ("sgd", "asam")) == ("asam",)
    assert later.missing("other", ("sgd",)) == ("sgd",)
    assert Budget.from_dict(json.loads(json.dumps(later.to_dict()))) == later


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"unit": "passes"}',
        '{"unit": "steps", "shares": {}}',
        '{"unit": "passes", "shares": {"": {"epochs": 2, "total": 4, "costs": {"sgd": 0}}}}',
    ],
)
def test_a_damaged_budget_is_one_sentence(text, tmp_path):
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(RecipeError, match=r"budget\.json is damaged .* choose another folder"):
        read_budget(tmp_path)


def test_passes_are_those_of_the_definition():
    methods = ("sgd", "sam", "looksam@k=4", "esam", "bisam-log+gsam", "momentumsam")
    found = step_costs(small(",".join(methods)), "passes", methods, None)
    assert found == pytest.approx(
        {"sgd": 1, "sam": 2, "looksam@k=4": 1.25, "esam": 1.5 + 1 / 3, "bisam-log+gsam": 3, "momentumsam": 1}
    )


def test_seconds_are_measured():
    found = step_costs(small("sgd,sam"), "seconds", ("sgd", "sam"), None)
    assert found["sam"] > 1.3 * found["sgd"] > 0


@pytest.mark.parametrize("unit", ["passes", "seconds"])
def test_a_method_that_decides_in_training_is_refused_with_the_remedy(unit):
    with pytest.raises(RecipeError, match=rf"--budget {unit} cannot plan aesam: it takes 1 to 2 .* --methods sgd,sam$"):
        step_costs(small("sgd,sam,aesam"), unit, ("aesam",), None)


def planned(folder, recipe, costs):
    study = Study(folder, recipe)
    study.set_budget("passes", dict.fromkeys(recipe.variants or [""], costs))
    return study


def trained(study):
    for each in study.runs:
        run_cell(study.recipe_of(each), each, study.path(each))
    return study.write_results()


def test_a_study_trains_at_equal_steps_and_at_equal_cost(tmp_path):
    recipe = small("sgd,sam", seeds=2)
    study = planned(tmp_path / "s", recipe, {"sgd": 1.0, "sam": 2.0})
    assert study.runs == [
        each
        for seed in (0, 1)
        for each in (Run("", seed, "sgd"), Run("", seed, "sgd", equal_cost=True), Run("", seed, "sam"))
    ]
    results = trained(study)
    assert read_results(study.folder) == (sorted(results, key=lambda result: result.run), [])
    longer = next(result for result in results if result.equal_cost)
    alone = train(recipes.changed(recipe, {("train", "epochs"): 6}), "sgd", 0)
    assert [e.train_loss for e in longer.history] == [e.train_loss for e in alone.history]
    assert longer.test_score == alone.test_score
    assert [e.learning_rate for e in longer.history][2:] == pytest.approx(
        [0.05, 0.025, 0.1 * (1 - math.cos(math.pi / 6)) / 2, 0]
    ), "the schedule is stretched over the epochs"
    (found,) = outcomes(results, "sgd", budget=study.budget)
    write_summary(study, results, [found])
    assert "equal steps | equal cost" in (study.folder / "table.md").read_text()
    assert "True" in (study.folder / "results.csv").read_text()
    again = Study(study.folder, recipe)
    assert [each.equal_cost for each in again.write_results()] == [False] * 4, "without a budget they are not compared"


def test_a_run_at_equal_cost_goes_on_and_is_set_aside_as_others_are(tmp_path):
    study = planned(tmp_path / "s", small("sgd,sam"), {"sgd": 1.0, "sam": 2.0})
    longer = Run("", 0, "sgd", equal_cost=True)
    with pytest.raises(Stopped):
        run_cell(study.recipe_of(longer), longer, study.path(longer), observer=StopAfter(20))
    notes = []
    other = Study(tmp_path / "s", small("sgd,sam", seeds=3), note=notes.append)
    other.set_budget("passes", {})
    result = run_cell(other.recipe_of(longer), longer, other.path(longer))
    alone = train(small("sgd", "train.epochs=6"), "sgd", 0)
    assert [e.train_loss for e in result.history] == [e.train_loss for e in alone.history]
    (other.path(longer) / "result.json").write_text("{")
    assert other.results() == {}
    assert (tmp_path / "s" / "quarantine" / "equal-cost-sgd-seed-0.1" / "REASON.txt").exists()
    assert "will be trained again" in notes[0]


def test_each_variant_has_a_budget_of_its_own(tmp_path):
    recipe = small("sgd,sam", "train.epochs=1", "variants={short: {}, long: {train.epochs: 4}}")
    study = planned(tmp_path / "s", recipe, {"sgd": 1.0, "sam": 2.0})
    longer = {each.variant: study.recipe_of(each).train.epochs for each in study.runs if each.equal_cost}
    assert longer == {"short": 2, "long": 8}


SCORES = {"sgd": (0.80, 0.81, 0.83), "sam": (0.84, 0.85, 0.86), "looksam": (0.82, 0.84, 0.83)}
LONGER = {"sgd": (0.85, 0.87, 0.86), "looksam": (0.84, 0.88, 0.85)}


def both():
    steps = [
        run(m, s, score, speed=50 if m == "sam" else 100) for m, each in SCORES.items() for s, score in enumerate(each)
    ]
    return steps, [at_cost(m, s, score) for m, each in LONGER.items() for s, score in enumerate(each)]


def test_the_table_has_both_columns_and_the_verdict_is_at_equal_cost():
    steps, cost = both()
    found = compare_variant("", [*steps, *cost], "sgd", budget=BUDGET)
    alone = [*cost, *(r for r in steps if r.method == "sam")]
    expected = {row.method: row for row in compare(alone, "sgd")}
    for row in found.rows:
        for name in ("mean", "std", "difference", "low", "high", "p", "p_adjusted", "differences"):
            assert getattr(row, name) == pytest.approx(getattr(expected[row.method], name), nan_ok=True), name
    rows = {row.method: row for row in found.rows}
    assert [rows[m].steps_mean for m in SCORES] == pytest.approx([100 * sum(s) / 3 for s in SCORES.values()])
    assert [(rows[m].epochs, rows[m].cost) for m in SCORES] == [(40, 1.0), (20, 2.0), (33, 1.2)]
    assert rows["sam"].difference == pytest.approx(-1.0), "at equal steps it would be +3.67"
    assert found.verdict == "At equal cost, in passes. " + verdict(found.rows, "sgd")
    assert "sgd 1 (40 epochs)" in found.cost and "sam 2 (20 epochs)" in found.cost
    table = markdown(found.rows, "sgd").splitlines()
    assert [cell.strip() for cell in table[0].split("|")[1:5]] == [
        "method",
        "epochs",
        "test accuracy %, equal steps",
        "equal cost",
    ]
    sam = next(line for line in table if line.startswith("| sam"))
    assert [cell.strip() for cell in sam.split("|")[1:5]] == ["sam", "20", "85.00 ± 1.00", "85.00 ± 1.00"]
    assert json.loads(json.dumps(found.to_dict()))["budget"] == "passes"


def test_a_failure_at_equal_steps_is_counted_beside_its_score():
    steps, cost = both()
    failed = [run("sgd", 0, 0.1, status="collapsed"), *(r for r in steps if r.run != Run("", 0, "sgd"))]
    rows = compare_variant("", [*failed, *cost], "sgd", budget=BUDGET).rows
    assert {row.method: row.steps_failed for row in rows} == {"sgd": 1, "sam": 0, "looksam": 0}
    assert "(1 failed)" in markdown(rows, "sgd")


def test_without_a_budget_the_table_says_what_the_steps_took():
    steps, cost = both()
    found = compare_variant("", [*steps, *cost], "sgd")
    assert {row.method: row.mean for row in found.rows} == pytest.approx(
        {m: 100 * sum(s) / 3 for m, s in SCORES.items()}
    )
    assert found.cost == (
        "Compared at equal steps. A step takes, beside one of sgd: sam 2.00, looksam 1.00. "
        "bisam compare --budget passes (or seconds) compares at equal cost."
    )
    assert found.budget is None


def test_no_run_of_the_baseline_at_equal_cost():
    steps, _ = both()
    found = compare_variant("", steps, "sgd", budget=BUDGET)
    assert found.verdict == "There is no finished run of sgd at equal cost, so there is nothing to compare with."


def test_the_page_shows_what_the_table_shows(tmp_path):
    folder = folders.study(tmp_path / "s")
    budget = Budget("seconds", {"": Share(6, 12.6, {"sgd": 1.05, "sam": 2.1})})
    (folder / "budget.json").write_text(json.dumps(budget.to_dict()))
    for seed, score in enumerate((0.86, 0.88, 0.87)):
        path = folder / "equal-cost" / "sgd" / f"seed-{seed}" / "result.json"
        path.parent.mkdir(parents=True)
        longer = folders.result("sgd", seed, score).to_dict() | {"equal_cost": True}
        longer["history"] = longer["history"] * 2
        for number, epoch in enumerate(longer["history"], 1):
            longer["history"][number - 1] = {**epoch, "epoch": number}
        path.write_text(json.dumps(longer))
    report = collect([folder])
    page = folders.Page(render(report))
    head, sgd, sam = page.tables["comparison"]
    assert head[:4] == ["method", "epochs", "test accuracy %, equal steps", "equal cost"]
    assert sgd[:4] == ["sgd", "12", "81.00 ± 1.00", "87.00 ± 1.00"]
    assert sam[:6] == ["sam", "6", "85.33 ± 1.53", "85.33 ± 1.53", "3", "\u22121.67"]
    assert "At equal cost, in seconds." in page.text
    assert "Left out of the comparison at equal cost: <b>odd." in page.text
    assert "--budget seconds" in page.text
    assert len(page.tables["runs"]) == 1 + 3 + 3 + 3 + 3, "those at equal steps, too"
    (block,) = report.studies[0].blocks
    assert {curve.method: len(curve.epoch) for curve in block.curves} == {"sgd": 12, "sam": 6}
    assert not [note for note in report.studies[0].notes if "runs are finished" in note]


def test_the_command_trains_compares_and_goes_on(tmp_path):
    args = ["compare", "--out", "s", "--jobs", "2", *SMALL, "train.epochs=2"]
    done = bisam(*args, "--methods", "sgd,sam", "--seeds", "2", "--budget", "passes", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["budget"]["shares"][""] == {"epochs": 2, "total": 4.0, "costs": {"sgd": 1.0, "sam": 2.0}}
    (outcome,) = told["outcomes"]
    assert (outcome["budget"], [row["epochs"] for row in outcome["rows"]]) == ("passes", [4, 2])
    assert "sgd 1 (4 epochs), sam 2 (2 epochs)" in " ".join(done.stderr.split())
    assert len(list((tmp_path / "s").glob("*/*/seed-*/result.json"))) == 6
    more = bisam(*args, "--methods", "sgd,sam,bisam-log+gsam", "--seeds", "2", "--budget", "passes", cwd=tmp_path)
    said = " ".join(more.stdout.split())
    assert more.returncode == 0, more.stdout + more.stderr
    assert "6 of 10 runs finished before" in said
    assert "bisam-log+gsam 3 (1 epochs)" in said, "the budget of four passes stays"
    assert re.search(r"method +epochs +test accuracy %, equal steps +equal cost", more.stdout)
    plain = bisam(*args, "--methods", "sgd,sam", "--seeds", "2", cwd=tmp_path)
    assert "4 of 4 runs finished before" in plain.stdout
    assert "Compared at equal steps." in plain.stdout and "--budget" in plain.stdout


def test_a_budget_in_another_unit_is_refused(tmp_path, capsys, monkeypatch):
    planned(tmp_path / "s", small("sgd,sam"), {"sgd": 1.0, "sam": 2.0})
    args = ["--methods", "sgd,sam", "--seeds", "1", *SMALL, "--out", str(tmp_path / "s"), "--budget", "seconds"]
    code, said = in_process(capsys, monkeypatch, "compare", *args)
    assert code == 2
    assert "has a budget in passes: say --budget passes" in said


def test_a_process_that_is_killed_while_it_plans_is_one_sentence(tmp_path, capsys, monkeypatch):
    def killed(*args):
        raise BrokenProcessPool

    monkeypatch.setattr("bisam_lab.cli.budget.plan", killed)
    code, said = in_process(
        capsys, monkeypatch, "compare", *SMALL, "--out", str(tmp_path / "s"), "--budget", "passes", "--json"
    )
    assert code == 1
    assert said.count("A process was killed") == 1
