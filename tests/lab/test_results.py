"""Studies from Python: a notebook reads what the folder holds, and trains as the command does."""

import doctest
import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bisam_lab
from bisam_lab import results as module
from bisam_lab.cli.options import read
from bisam_lab.errors import RecipeError
from bisam_lab.parallel.events import EpochDone, JobEnded
from tests.pages import ROOT, run_page

from .report.folders import EVIL, SCORES, result, study
from .test_cli import TINY

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def folder(tmp_path):
    return study(tmp_path / "a", name=EVIL)


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    yield
    pyplot.close("all")


def test_the_names_are_public_and_importing_them_is_cheap(tmp_path):
    names = ("torch", "pandas", "matplotlib", "scipy", "pydantic", "typer")
    code = f"import sys, bisam_lab; print([n for n in {names!r} if n in sys.modules], sorted(bisam_lab.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "[] ['Study', 'audit', 'compare', 'main']", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'Studie'"):
        _ = bisam_lab.Studie


def test_a_frame_has_a_row_a_run(folder):
    frame = bisam_lab.Study(folder).frame()
    assert len(frame) == 9
    scores = frame.pivot(index="seed", columns="method", values="test_score")
    for method, expected in SCORES.items():
        assert tuple(scores[method]) == expected
    odd = frame[(frame.method == "<b>odd") & (frame.seed == 2)].iloc[0]
    assert (odd.status, odd.selected_epoch, odd.metric, odd["environment.torch"]) == (
        "collapsed",
        6,
        "accuracy",
        "2.9.1",
    )
    assert not {"history", "environment"} & set(frame.columns)


def test_curves_have_a_row_an_epoch(folder):
    curves = bisam_lab.Study(folder).curves()
    assert len(curves) == 9 * 6
    first = curves[(curves.method == "sam") & (curves.seed == 1) & (curves.epoch == 2)].iloc[0]
    assert (first.train_loss, first.validation_score) == (1.0, 0.85 - 0.05)


def test_the_table_is_that_of_the_command(folder):
    rows = bisam_lab.Study(folder).table()
    assert list(rows.method) == list(SCORES)
    sam = rows.set_index("method").loc["sam"]
    assert sam["mean"] == pytest.approx(100 * np.mean(SCORES["sam"]))
    assert sam.difference == pytest.approx(100 * (np.mean(SCORES["sam"]) - np.mean(SCORES["sgd"])))
    assert sam.low < sam.difference < sam.high and sam.n == 3
    against = bisam_lab.Study(folder).table(baseline="sam").set_index("method")
    assert against.loc["sgd"].difference == pytest.approx(-sam.difference)
    assert np.isnan(against.loc["sam"].difference)


def test_variants_are_told_apart(tmp_path):
    found = bisam_lab.Study(study(tmp_path / "b", variants=("wrn", "vgg")))
    assert found.variants == ["wrn", "vgg"]
    assert found.table().loc[("vgg", "sam"), "n"] == 3
    assert found.verdict().startswith("wrn: ") and found.verdict("vgg") in found.verdict()
    assert len(found.plot_curves(variant="wrn").get_lines()) == 3
    with pytest.raises(RecipeError, match=r"variant: the study has wrn, vgg, and none is named: write variant='wrn'"):
        found.plot_differences()
    with pytest.raises(RecipeError, match="none is 'vg'"):
        found.verdict("vg")


def test_plots_show_the_study(folder):
    found = bisam_lab.Study(folder)
    axes = found.plot_curves()
    line = next(line for line in axes.get_lines() if line.get_label() == "sam")
    expected = [100 * (np.mean(SCORES["sam"]) - 0.1 / epoch) for epoch in range(1, 7)]
    assert list(line.get_ydata()) == pytest.approx(expected)
    _, (left, right) = pyplot.subplots(1, 2)
    assert found.plot_differences(baseline="sgd", ax=right) is right
    assert {"sam", "<b>odd"} <= {text.get_text() for text in right.texts}
    assert found.plot_curves("train_loss", ax=left).get_title("left").startswith("training loss")
    with pytest.raises(RecipeError, match=r"quantity='valid' is none of validation_score, train_score"):
        found.plot_curves("valid")


def test_a_notebook_shows_tables_and_verdict(folder):
    shown = bisam_lab.Study(folder)._repr_html_()
    assert "<script" not in shown and "<b>odd" not in shown, "names are escaped"
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    assert len(rows) == 1 + 3
    assert "<td>sam</td><td>85.33 ± 1.53</td><td>3</td><td>+4.33</td>" in rows[2]
    assert bisam_lab.Study(folder).verdict()[:20] in shown


def test_its_text_says_what_is_missing(tmp_path):
    found = bisam_lab.Study(study(tmp_path / "c", skip=(("sam", 1),)))
    assert repr(found) == (
        f"Study({str(tmp_path / 'c')!r}): 8 of 9 runs are finished. The numbers are computed from these."
    )
    assert repr(bisam_lab.Study(study(tmp_path / "whole"))).endswith("whole'): 9 runs are finished.")


def test_the_page_is_that_of_bisam_report(folder, tmp_path):
    path = bisam_lab.Study(folder).report(tmp_path / "page.html")
    assert "</html>" in path.read_text() and "window.evil = 1</script>" not in path.read_text()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: bisam_lab.Study(path / "no"), "is no folder: name the one that was out of bisam compare"),
        (lambda path: bisam_lab.Study(path / "a").table(baseline="sma"), "^baseline sma is not among the methods"),
        (lambda path: bisam_lab.Study(path / "a").table(test="u"), "test='u' is none of t, wilcoxon, bootstrap"),
        (lambda path: bisam_lab.compare("digits", "train.lr=1"), r"is one text: write \['train.lr=1'\]"),
        (
            lambda path: bisam_lab.compare("digits", {"train.lr": object()}),
            "train.lr is of the type object: give a number",
        ),
        (
            lambda path: bisam_lab.compare("digits", {"train.lrr": 1}),
            "train.lrr: unknown key: did you mean train.lr=1?",
        ),
        (lambda path: bisam_lab.compare("digits", out=path), "^out .* holds files but no recipe.yaml"),
        (lambda path: bisam_lab.compare("digitss"), "did you mean digits?"),
    ],
)
def test_errors_name_the_argument(call, words, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "warm_up", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=words) as caught:
        call(tmp_path)
    assert "--" not in str(caught.value)


def test_a_folder_without_a_study_is_refused(folder, monkeypatch):
    empty = module.collect([folder])
    monkeypatch.setattr(module, "collect", lambda *args: replace(empty, studies=[]))
    with pytest.raises(RecipeError, match="is not the folder of a study: name one that bisam compare has written"):
        bisam_lab.Study(folder)


def test_without_pandas_it_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        bisam_lab.Study(folder).frame()


def test_overrides_are_those_of_the_command_line():
    given = {"train.lr": 1e-05, "model.options": {"width": 2}, "methods": ["sgd", "sam"], "data.name": "digits"}
    words = module._words(given)
    assert words == ["train.lr=1.0e-05", "model.options={width: 2}", "methods=[sgd, sam]", "data.name=digits"]


SCRIPT = """
import bisam_lab
for seeds in (1, 2):
    study = bisam_lab.compare("digits", {overrides!r}, methods=["sgd"], seeds=seeds, jobs=1, out="mine")
    print(len(study.frame()))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_trains_once(tmp_path):
    """A process of a study runs what it is given, and not the program that has called."""
    (tmp_path / "script.py").write_text(SCRIPT.format(overrides=TINY))
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("[")] == [
        "[1/1] sgd seed 0",
        "[2/2] sgd seed 1",
    ]
    assert [line for line in lines if line.isdigit()] == ["1", "2"]
    stored = [json.loads(line) for line in (tmp_path / "mine" / "results.jsonl").read_text().splitlines()]
    assert len(stored) == 2 and (tmp_path / "mine" / "table.md").exists()


class Shown(doctest.OutputChecker):
    """What an example does not say it prints is not compared."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The demo's study in studies/demo and studies/mine of the current folder; compare() finds it trained."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    unpack = importlib.import_module("demo_study").unpack
    monkeypatch.chdir(tmp_path)
    mine = unpack(tmp_path / "studies" / "mine")
    unpack(tmp_path / "studies" / "demo")
    asked = []
    monkeypatch.setattr(
        bisam_lab, "compare", lambda *args, **choices: asked.append((args, choices)) or mine, raising=False
    )
    return asked


def test_the_examples_of_the_reference_run(stored):
    finder, said = doctest.DocTestFinder(), []
    for item in (module.Study, module.compare):
        for test in finder.find(item, item.__name__, globs={"bisam_lab": bisam_lab}):
            doctest.DocTestRunner(checker=Shown()).run(test, out=said.append)
            assert test.examples or test.name.rpartition(".")[2] not in ("Study", "compare", "frame", "curves", "table")
    assert said == [], "".join(said)
    assert len(stored) == 1


def test_the_page_about_notebooks_runs(stored):
    names = run_page("docs/lab/notebook.md", blocks=4)
    (((recipe, overrides), choices),) = stored
    read(recipe, module._words(overrides), seeds=choices["seeds"], methods=f"[{choices['methods']}]")
    assert len(names["runs"]) == 40 and Path("report.html").exists()


def test_the_demo_of_the_readme_is_the_stored_study(stored):
    """Its accuracies and differences; the speeds are those of another hour."""
    rows = re.findall(
        r"^\| (sgd|sam|bisam-\w+) \| (\S+) ± (\S+) \| 10 \| (\S+)", (ROOT / "README.md").read_text(), re.M
    )
    table = bisam_lab.Study("studies/demo").table()
    shown = [(r.method, f"{r.mean:.2f}", f"{r.std:.2f}", f"{r.difference:+.2f}") for r in table.itertuples()]
    assert [row[:3] for row in rows] == [row[:3] for row in shown]
    assert [row[3] for row in rows[1:]] == [row[3] for row in shown[1:]]
    low, high = table.set_index("method").loc["sam", ["low", "high"]]
    assert f"7.02\n[{low:.2f}, {high:.2f}] points" in (ROOT / "docs" / "index.md").read_text()


def test_a_run_that_fails_is_an_error_behind_the_others(tmp_path, monkeypatch, capsys):
    def some(study, jobs, stack, keep_weights):
        yield JobEnded("sgd seed 0", error="ValueError: no")
        yield EpochDone("sam seed 0", 1, 1, 0.5)
        yield JobEnded("sam seed 0", result("sam", 0, 0.875))

    monkeypatch.setattr(module, "warm_up", lambda: None)
    monkeypatch.setattr("bisam_lab.study.pool.run_study", some)
    with pytest.raises(RuntimeError, match="sgd seed 0 failed: ValueError: no; the same call tries again"):
        bisam_lab.compare(methods="sgd,sam", seeds=1, out=tmp_path / "s")
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] sgd seed 0 failed: ValueError: no",
        "[2/2] sam seed 0: test 87.50 % (12.5 s)",
    ]
    with pytest.raises(RuntimeError, match="sgd seed 0 failed"):
        bisam_lab.compare(methods="sgd,sam", seeds=1, out=tmp_path / "s", quiet=True)
    assert capsys.readouterr().out == ""


def test_a_module_that_trains_as_it_is_imported_by_a_run_is_told(monkeypatch):
    monkeypatch.setattr(module, "parent_process", lambda: object())
    with pytest.raises(RuntimeError, match='below if __name__ == "__main__":'):
        bisam_lab.compare()
