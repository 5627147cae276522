"""``--seeds auto`` and ``--watch``, with runs that are not trained."""

import io
import json
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

import bisam_lab
from bisam_lab.cli.live import Live
from bisam_lab.cli.so_far import SoFar
from bisam_lab.parallel.events import JobEnded
from bisam_lab.recipe import RecipeError, load
from bisam_lab.report import collect
from bisam_lab.run.result import Run, RunResult
from bisam_lab.study.elsewhere import wait_for_others
from bisam_lab.study.folder import Study
from bisam_lab.study.looks import read_look

COMPARE = ["compare", "digits", "--methods", "sgd,sam", "--jobs", "1", "--out", "s"]


def write(study, run, score):
    result = RunResult(run.method, run.seed, "ok", score, score, 1, 10.0, 1.0, variant=run.variant)
    path = study.path(run)
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps(result.to_dict()))
    return result


def scored(score):
    """A stand-in for the training: the runs that are missing have ``score(method, seed)``."""

    def run_study(study, jobs, stack="off", keep_weights=False):
        before = study.results()
        for run in study.runs:
            if run not in before:
                yield JobEnded(str(run), write(study, run, score(run.method, run.seed)))

    return run_study


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """Return a function that runs the command: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bisam_lab.report.summary.draw_comparison", lambda block, title, path: path.touch())

    def run(score, *args):
        monkeypatch.setattr("bisam_lab.cli.comparing.run_study", scored(score))
        monkeypatch.setattr(sys, "argv", ["bisam", *args])
        with pytest.raises(SystemExit) as left:
            bisam_lab.main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def clear(method, seed):
    return 0.8 + 0.001 * (seed % 4) + (0.1 + 0.001 * (seed % 3) if method == "sam" else 0)


def noisy(method, seed):
    return 0.8 + (0.03 * (-1) ** seed if method == "sam" else 0)


def test_a_clear_difference_needs_the_first_look_alone(said):
    code, out, _ = said(clear, *COMPARE, "--seeds", "auto", "--difference", "1")
    assert code == 0
    assert "Look 1 of 4, 5 seeds, at the 0.625 % level: settled." in out
    assert "99.375 % interval" in out
    assert "(paired t-tests over 5 seeds at the 0.625 % level, Holm-adjusted)" in out
    assert len(list(Path("s").glob("runs/*/seed-*/result.json"))) == 10
    assert "99.375 % interval" in Path("s/table.md").read_text()
    (block,) = collect([Path("s")]).studies[0].blocks
    assert block.interval == "99.375 % interval", "the page has the level that the command has"
    code, out, _ = said(clear, *COMPARE, "--seeds", "5")
    assert "The number of seeds was chosen by looking at the study (look 1 of 4, 5 seeds, at the 0.625 % level)" in out
    assert "99.375 % interval" in out


def test_noise_needs_all_looks_and_more(said):
    code, out, err = said(noisy, *COMPARE, "--seeds", "auto", "--difference", "1", "--json")
    assert code == 0
    for number, seeds in ((1, 5), (2, 10), (3, 20)):
        assert f"Look {number} of 4, {seeds} seeds" in err
    assert err.count("not settled yet: sam.") == 3
    assert "Look 4 of 4, 40 seeds, at the 2.5 % level: the last one. Not settled: sam." in err
    told = json.loads(out)
    assert told["look"] == {"number": 4, "seeds": 40, "level": 0.025, "looks": 4, "most_seeds": 40, "settled": False}
    (row,) = [row for row in told["outcomes"][0]["rows"] if row["method"] == "sam"]
    assert (row["n"], row["level"]) == (40, 0.975)
    assert "1 points need" in told["outcomes"][0]["verdict"]


def test_noise_that_is_small_beside_the_difference_needs_few(said):
    code, out, _ = said(noisy, *COMPARE, "--seeds", "auto", "--difference", "5")
    assert code == 0
    assert (
        "Look 2 of 4, 10 seeds, at the 0.625 % level: settled. Every method differs, or 10 seeds show 5 points" in out
    )


def test_seeds_that_are_there_already_do_not_count_before_their_look(said):
    """A study of forty seeds is read look by look, and its first five settle it."""
    said(clear, *COMPARE, "--seeds", "12")
    code, out, _ = said(clear, *COMPARE, "--seeds", "auto", "--difference", "1", "--json")
    assert code == 0
    assert json.loads(out)["look"]["seeds"] == 5
    assert {row["n"] for row in json.loads(out)["outcomes"][0]["rows"]} == {5}
    (block,) = collect([Path("s")]).studies[0].blocks
    assert {row.n for row in block.comparison} == {5}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seeds", "auto"], "--seeds auto needs --difference: the points that matter to you"),
        (["--seeds", "auto", "--difference", "1", "variants={a: {}, b: {}}"], "such as --variants a"),
        (["--seeds", "0"], "--seeds '0' must be a whole number from 1, or auto"),
        (["--seeds", "atuo"], "--seeds 'atuo' must be a whole number from 1, or auto"),
        (["--seeds", "9" * 30], "must be a whole number from 1, or auto"),
    ],
)
def test_what_looks_cannot_do_is_said(args, words, said):
    code, _, err = said(clear, *COMPARE, *args)
    assert code == 2
    assert words in " ".join(err.split())
    assert not Path("s").exists()


def test_a_damaged_look_is_named(tmp_path):
    assert read_look(tmp_path) is None
    for text in ("{", "[]", '{"seeds": 5, "level": 7, "words": ""}', '{"seeds": 1e999, "level": 0.1, "words": ""}'):
        (tmp_path / "look.json").write_text(text)
        with pytest.raises(RecipeError, match=r"look\.json is damaged: delete it, and repeat"):
            read_look(tmp_path)


def test_watch_shows_the_means_and_no_test_before_the_end(said):
    code, out, _ = said(clear, *COMPARE, "--seeds", "2", "--watch")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("so far: ")]
    assert lines[0] == "so far: sgd 80.00 (1), sam - (0)"
    assert lines[3] == "so far: sgd 80.05 ± 0.07 (2), sam 90.10 ± 0.14 (2)"
    assert not any(" p " in line or "p =" in line for line in lines)
    assert "so far" not in said(clear, *COMPARE, "--seeds", "3")[1]


def test_on_a_terminal_the_table_stands_above_the_bars():
    runs = [Run(variant, seed, "sgd") for variant in ("clean", "noisy") for seed in (0, 1)]
    runs.append(Run("noisy", 0, "sam", equal_cost=True))
    so_far = SoFar(runs, [RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0, variant="clean")])
    assert so_far.rows() == [("clean sgd", [50.0], 2), ("noisy sgd", [], 2), ("noisy sam at equal cost", [], 1)]
    console = Console(file=(out := io.StringIO()), force_terminal=True, width=80)
    with Live(console, "all runs", 5, 1) as live:
        live.set_above(so_far.table())
        shown = out.getvalue()
    assert "So far, untested" in shown
    assert shown.index("clean sgd") < shown.rindex("all runs")


def test_the_runs_of_others_are_waited_for(tmp_path):
    study = Study(tmp_path / "s", load("digits", ["seeds=1", "methods=[sgd,sam]"]))
    first, second = study.runs
    write(study, first, 0.5)
    study.path(second).mkdir(parents=True)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            write(study, second, 0.5)
        assert len(slept) < 5, "waited for a run that has ended"

    with FileLock(study.path(second) / ".lock"):
        wait_for_others(study, sleep)
    assert len(slept) == 3
    wait_for_others(study, sleep)  # nothing is missing
    (study.path(second) / "result.json").unlink()
    wait_for_others(study, sleep)  # nobody trains it
    assert len(slept) == 3


def test_watch_goes_on_with_what_another_process_left(said, monkeypatch):
    """Another process has a run in hand, and ends it while we wait."""
    waited = []

    def run_study(study, jobs, stack="off", keep_weights=False):
        run = study.runs[0]
        if waited:
            return
        yield JobEnded(str(run), write(study, run, 0.8))
        yield JobEnded(str(study.runs[1]))

    def wait(study):
        waited.append(write(study, study.runs[1], 0.9))

    monkeypatch.setattr("bisam_lab.cli.comparing.wait_for_others", wait)
    monkeypatch.setattr("tests.lab.test_looking.scored", lambda score: run_study)
    code, out, _ = said(clear, *COMPARE, "--seeds", "1", "--watch")
    assert code == 0
    assert "Waiting for 1 run of another process." in out
    assert "2 of 2 runs finished before" in out
    assert len(waited) == 1
    assert "Too few pairs to say anything: sam." in out
