"""Measures of runs: asked for before or after, alone or in a stack, compared, written down, and refused."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
from filelock import FileLock

from bisam_lab.measures.taking import check, taker
from bisam_lab.parallel.engine import Engine
from bisam_lab.recipe import RecipeError, digest, load
from bisam_lab.registry.measures import MEASURES
from bisam_lab.report.survives import survives_markdown
from bisam_lab.report.words import NONE
from bisam_lab.run.checkpoint import read, write
from bisam_lab.run.result import Run, RunResult
from bisam_lab.run.train import train, training
from bisam_lab.stack.together import together
from bisam_lab.statistics.by_variant import compare_variant
from bisam_lab.study.cell import run_cell
from bisam_lab.study.folder import Study
from bisam_lab.study.measuring import lacking, measure_kept
from bisam_lab.study.pool import run_study

from ..run.runs import TINY
from ..test_cli import in_process

SMALL = (*TINY, "train.epochs=2", "methods=[sam]", "seeds=1", "data.test_size=100")


def whole(measures="[all]"):
    return load("digits", [*SMALL, f"measures={measures}"])


def test_measures_change_nothing_of_a_run_and_what_is_asked_later_is_the_same(tmp_path):
    recipe, plain = whole(), load("digits", SMALL)
    assert digest(recipe) == digest(plain)
    run = Run("", 0, "sam")
    at_once = run_cell(recipe, run, tmp_path / "a")
    assert {name: set(found) for name, found in at_once.measures.items()} == {
        name: {quantity.key for quantity in measure.quantities} for name, measure in MEASURES.items()
    }
    study = Study(tmp_path / "s", plain, None)
    without = run_cell(plain, run, study.path(run), keep_weights=True)
    assert without.measures == {}
    assert [vars(e) | {"seconds": 0} for e in without.history] == [vars(e) | {"seconds": 0} for e in at_once.history]
    assert without.test_score == at_once.test_score
    assert sorted(p.name for p in (study.path(run) / "checkpoints").iterdir()) == ["best.pt"]
    assert not (tmp_path / "a" / "checkpoints").exists()
    study = Study(tmp_path / "s", recipe, None)
    assert lacking(study, study.results()) == [run]
    later = measure_kept(recipe, run, study.path(run), None, recipe.measures)
    assert later.measures == at_once.measures
    stored = json.loads((study.path(run) / "result.json").read_text())
    assert RunResult.from_dict(stored).measures == later.measures
    assert lacking(study, study.results()) == []
    study.write_results()
    header = (tmp_path / "s" / "results.csv").read_text().splitlines()[0].split(",")
    assert {"calibration.ece", "weight-noise.noise_0.2"} < set(header)


def test_runs_that_kept_no_weights_are_named(tmp_path, capsys, monkeypatch):
    plain, run = load("digits", SMALL), Run("", 0, "sam")
    run_cell(plain, run, Study(tmp_path / "s", plain, None).path(run))
    with pytest.raises(RecipeError, match=r"measures: 1 finished runs kept no weights to measure \(sam seed 0\)"):
        lacking(Study(tmp_path / "s", whole("[calibration]"), None), {run: run_cell(plain, run, tmp_path / "b")})
    code, said = in_process(
        capsys, monkeypatch, "compare", *SMALL[:-2], "data.test_size=100", "--seeds", "1", "--out", str(tmp_path / "s"),
        *("--measures", "calibration"),
    )  # fmt: skip
    assert code == 2
    assert "--restart --keep-weights" in said


def test_weights_that_cannot_be_measured_are_named(tmp_path):
    plain, run = load("digits", SMALL), Run("", 0, "sam")
    folder = Study(tmp_path / "s", plain, None).path(run)
    run_cell(plain, run, folder, keep_weights=True)
    best, ask = folder / "checkpoints" / "best.pt", partial(measure_kept, plain, run, folder, None, ["worst-class"])
    with FileLock(folder / ".lock"), pytest.raises(RecipeError, match="another process is at work on sam seed 0"):
        ask()
    kept = read(best)
    for changed, said in (
        ({"epoch": 7}, r"best\.pt is of epoch 7, and epoch \d was tested: train the run again, with another --out"),
        ({"model": {}}, r"best\.pt does not fit the recipe's network: train the run again"),
        ({"model": 3}, "does not fit the recipe's network"),
    ):
        write(best, kept | changed)
        with pytest.raises(RecipeError, match=said):
            ask()
    best.write_bytes(best.read_bytes()[:300])
    with pytest.raises(RecipeError, match=r"best\.pt is no checkpoint, or only a part of one .*: train the run again"):
        ask()


def test_weights_that_are_asked_for_too_late_are_not_promised(tmp_path):
    plain, run = load("digits", SMALL), Run("", 0, "sam")
    study = Study(tmp_path / "s", plain, None)
    run_cell(plain, run, study.path(run))
    assert list(run_study(study, Engine(jobs=1))) == []
    (note,) = run_study(study, Engine(jobs=1), keep_weights=True)
    assert "1 finished runs kept no weights" in note.text and "sam seed 0" in note.text
    assert "--restart --keep-weights" in note.text


def test_an_empty_list_of_measures_is_a_mistake(capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "compare", "digits", "--measures", " ")
    assert (code, said) == (2, "error: --measures names none: say --measures calibration, or leave it out")


def test_a_stack_measures_what_a_run_alone_measures():
    recipe = load("digits", [*SMALL, "engine.precision=64-true", "measures=[calibration,forgetting,weight-noise]"])
    found = together([partial(training, recipe, "sam", k, stack=2, measure=taker(recipe)) for k in range(2)])
    for seed, result in enumerate(found):
        expected = train(recipe, "sam", seed, measure=taker(recipe))
        for name, quantities in expected.measures.items():
            assert result.measures[name] == pytest.approx(quantities, rel=1e-6), name


def test_texts_are_measured_and_have_no_corruptions(tmp_path):
    words = {"good": ("fine", "great", "lovely"), "bad": ("poor", "awful", "dull")}
    rows = [f"a {words[kind][i % 3]} film number {i},{kind}" for i in range(30) for kind in words]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    sizes = [f"data.name=text:{tmp_path}/texts.csv", "train.epochs=1", "train.batch_size=16", "methods=[sam]"]
    refused = load("own-texts", [*sizes, "measures=[all]"], smoke=True)
    with pytest.raises(
        RecipeError, match=r"measures: corruptions are of images, .* texts: --measures calibration,quan"
    ):
        check(refused, None)
    others = [name for name in MEASURES if name != "corruptions"]
    recipe = load("own-texts", [*sizes, f"measures=[{','.join(others)}]", "train.epochs=1"], smoke=True)
    check(recipe, None)
    found = train(recipe, "sam", 0, measure=taker(recipe)).measures
    assert list(found) == others
    assert 0 <= found["worst-class"]["worst"] <= found["worst-class"]["mean"] <= 1


def test_images_that_torchvision_cannot_corrupt_are_refused_before_they_are_trained(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\nfrom bisam_lab.datasets import Images\n\n"
        "def four(*_):\n    part = torch.zeros(60, 4, 8, 8), torch.arange(60) % 2\n    return Images(part, part)\n"
    )
    data = [f"data.name={tmp_path}/own.py:four", "data.train_size=null", "data.validation_size=8", "train.batch_size=8"]
    recipe = load("digits", [*data, "data.test_size=null", "measures=[corruptions,quantised]"])
    with pytest.raises(RecipeError, match=r"grey or colour, .* have 4 channels: --measures quantised"):
        check(recipe, None)
    check(load("digits", [*data, "data.test_size=null", "measures=[quantised,worst-class]"]), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [("[calibratoin]", "did you mean calibration?"), ("[ece]", "is none of calibration, corruptions"), ("3", "a list")],
)
def test_a_measure_that_does_not_exist_is_named(given, said):
    with pytest.raises(RecipeError) as caught:
        load("digits", [f"measures={given}"])
    assert said in str(caught.value)
    assert "pydantic" not in str(caught.value)


def result(method, seed, **quantities):
    return RunResult(method, seed, "ok", 0.9, 0.9, 1, 1.0, 1.0, measures={"calibration": quantities})


def test_an_infinite_loss_is_no_number_and_no_warning():
    runs = [result("sgd", s, nll=1.0) for s in range(2)]
    runs += [result("sam", 0, nll=1.0), result("sam", 1, nll=math.inf)]
    outcome = compare_variant("", runs, "sgd")
    (nll,) = outcome.measures
    assert math.isnan(nll.rows[1].mean)
    assert math.isnan(nll.rows[1].p)
    assert f"|  | sam | {NONE} | 2 | {NONE} | {NONE} | {NONE} |" in survives_markdown(outcome)


def test_a_measure_is_compared_in_its_own_unit():
    runs = [result("sgd", s, ece=0.10 + 0.01 * s, nll=1.0) for s in range(3)]
    runs += [result("sam", s, ece=0.08 + 0.01 * s + 0.002 * (s == 1), nll=0.7 + 0.1 * s) for s in range(3)]
    runs.append(replace(result("sam", 3), measures={}))
    outcome = compare_variant("", runs, "sgd")
    ece, nll = outcome.measures
    sgd, sam = ece.rows
    assert (sgd.mean, sgd.n, sam.n) == (pytest.approx(11.0), 3, 3)
    assert sam.difference == pytest.approx(-2 + 0.2 / 3)
    half = 4.302653 * 0.2 / 3**0.5 / 3**0.5  # Student's t with two degrees of freedom, of -2, -1.8, -2
    assert (sam.low, sam.high) == (
        pytest.approx(sam.difference - half, abs=1e-4),
        pytest.approx(sam.difference + half, abs=1e-4),
    )
    assert nll.rows[1].differences == pytest.approx((-0.3, -0.2, -0.1))
    text = survives_markdown(outcome)
    assert "### calibration" in text
    assert "| ECE, 15 bins, % | sgd | 11.00 ± 1.00 | 3 | baseline |" in text
    assert "|  | sam | 0.8000 ± 0.1000 | 3 | -0.2000 |" in text
    assert outcome.to_dict()["measures"][0]["label"] == "ECE, 15 bins, %"
