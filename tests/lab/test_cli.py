"""The command as a user types it: real processes, real interruptions."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import bisam_lab
from tests.warm import warm

BISAM = str(Path(sys.executable).parent / "bisam")
TINY = [
    "data.train_size=96",
    "data.validation_size=50",
    "model.options.width=2",
    "train.epochs=2",
    "train.batch_size=48",
]
ENV = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}


def bisam(*args, cwd, timeout=240):
    return subprocess.run(
        [warm(), *args], capture_output=True, text=True, cwd=cwd, env=ENV, timeout=timeout, check=False
    )


def in_process(capsys, monkeypatch, *args):
    """The command's own code without the seconds that a process takes: (exit code, what stderr says)."""
    monkeypatch.setattr(sys, "argv", ["bisam", *args])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    return left.value.code, " ".join(capsys.readouterr().err.split())


def start(*args, cwd):
    return subprocess.Popen(
        [BISAM, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=ENV,
        start_new_session=True,
    )


def finished(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/seed-*/result.json")}


def workers(process):
    """The processes that run the jobs of a command that :func:`start` started."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,pgid="], capture_output=True, text=True, check=True).stdout
    rows = [list(map(int, line.split())) for line in listing.splitlines()]
    server = [pid for pid, parent, group in rows if parent == process.pid]
    return [pid for pid, parent, group in rows if parent in server and group == process.pid]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_compare_from_nothing_to_table_and_figure(tmp_path):
    learns = [*TINY, "model.options.width=8", "train.batch_size=8"]  # enough for no run to collapse
    args = ["--methods", "sgd,sam,bisam-log", "--seeds", "2", "--jobs", "2", "--out", "s", *learns]
    done = bisam("compare", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "s"
    for method in ("sgd", "sam", "bisam-log"):
        assert re.search(rf"{method} .*\d+\.\d\d ± \d+\.\d\d", done.stdout), done.stdout
    assert "paired t-tests over 2 seeds" in " ".join(done.stdout.split())
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 6
    assert {(r["method"], r["seed"]) for r in rows} == {(m, s) for m in ("sgd", "sam", "bisam-log") for s in "01"}
    assert len(lines[0]["history"]) == 2
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "| sgd |" in (out / "table.md").read_text()
    assert len(list(out.glob("runs/*/seed-*/tensorboard/events*"))) == 6
    assert "recipe.yaml" in (out / "README.txt").read_text()

    before = finished(out)
    again = bisam(
        "compare", "--methods", "sgd,sam", "--seeds", "3", "--baseline", "sam", "--out", "s", *learns, cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    assert "4 of 6 runs finished before" in again.stdout
    assert len(finished(out)) == 8
    assert before.items() <= finished(out).items(), "a finished run was run again"
    from_its_own_recipe = bisam("compare", "s/recipe.yaml", "--out", "s", cwd=tmp_path)
    assert "6 of 6 runs finished before" in from_its_own_recipe.stdout

    other = bisam("compare", "--out", "s", *learns, "train.lr=0.3", cwd=tmp_path)
    assert other.returncode == 2
    assert "train.lr=0.1 there, 0.3 now" in " ".join(other.stderr.split())


@pytest.mark.slow
def test_the_same_seeds_give_the_same_numbers_whatever_the_jobs(tmp_path):
    for out, jobs in (("a", "1"), ("b", "2")):
        args = ["--methods", "sam", "--seeds", "2", "--jobs", jobs, "--stack", "off", "--out", out, *TINY]
        done = bisam("compare", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    a, b = ([json.loads(line) for line in (tmp_path / out / "results.jsonl").read_text().splitlines()] for out in "ab")
    for x, y in zip(a, b, strict=True):
        assert x["test_score"] == y["test_score"]
        assert [e["train_loss"] for e in x["history"]] == pytest.approx(
            [e["train_loss"] for e in y["history"]], rel=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_interrupted_and_resumed(number, tmp_path):
    """Stop it in mid-run: finished runs stay, no process is left over, and the same command does the rest alone."""
    args = ["compare", "--methods", "sgd,sam", "--seeds", "2", "--jobs", "2", "--out", "s", *TINY, "train.epochs=100"]
    process, out = start(*args, cwd=tmp_path), tmp_path / "s"
    wait_for(lambda: len(finished(out)) >= 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], output
    if number != signal.SIGKILL:
        assert "What is done is kept" in output
    wait_for(lambda: not _alive(process.pid), 20)
    before = finished(out)
    assert 1 <= len(before) < 4, "too fast or too slow to show anything"
    done = bisam(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} of 4 runs finished before" in done.stdout
    assert before.items() <= finished(out).items()
    assert len(finished(out)) == 4
    if number != signal.SIGKILL:
        assert "goes on from epoch" in done.stdout, "a half-finished run began again"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_sentence(tmp_path):
    args = ["compare", "--methods", "sgd,sam", "--seeds", "2", "--jobs", "2", "--out", "s", *TINY, "train.epochs=300"]
    process = start(*args, cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "s").glob("runs/*/seed-*/tensorboard/events*")))
    os.kill(workers(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert output.count("A process was killed") == 1
    assert "Traceback" not in output
    wait_for(lambda: not _alive(process.pid), 20)


def _alive(group):
    """Whether any process of the group is left, zombies aside."""
    listing = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(g) == group and not state.startswith("Z") for g, state in map(str.split, listing.splitlines()))


@pytest.mark.slow
def test_a_damaged_result_is_set_aside_and_run_again(tmp_path):
    args = ["compare", "--methods", "sgd", "--seeds", "1", "--out", "s", *TINY]
    bisam(*args, cwd=tmp_path)
    (result,) = finished(tmp_path / "s")
    text = result.read_text()
    whole = json.loads(text)
    for number, (damaged, reason) in enumerate(
        [(text[:40], "cannot be read"), (text.replace('"seed": 0', '"seed": 7'), "is the result of sgd seed 7")], 1
    ):
        result.write_text(damaged)
        done = bisam(*args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "is set aside" in done.stdout
        assert json.loads(result.read_text())["test_score"] == whole["test_score"]
        assert reason in (tmp_path / "s" / "quarantine" / f"sgd-seed-0.{number}" / "REASON.txt").read_text()


def test_collapsed_runs_are_marked_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(ENV, "COLUMNS", "60")  # narrower than the table, which must not lose a column
    done = bisam(
        "compare", "--methods", "sgd,sam", "--seeds", "2", "--out", "s", *TINY, "sharpness.rho=1000", cwd=tmp_path
    )
    assert re.search(r"sam \([12] collapsed\)", done.stdout)
    assert "of sam (collapsed)" in " ".join(done.stdout.split())
    assert re.search(r"sam \(\d collapsed\) +\d+\.\d\d ± \d+\.\d\d +2 ", done.stdout), "the table lost a column"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["digitz"], ["'digitz'", "did you mean digits?"]),
        (["train.lrr=1"], ["train.lrr", "did you mean train.lr=1?"]),
        (["--methods", "sgd,sma"], ["'sma'", "did you mean sam?"]),
        (["--baseline", "asam"], ["--baseline asam", "sgd, sam"]),
        (["cifar10"], ["--data-dir"]),
        (["cifar100", "--data-dir", "."], ["cifar-100-python"]),
        (["engine.precision=fp16"], ["engine.precision='fp16'", "16-mixed"]),
        (["engine.accelerator=tpu"], ["engine.accelerator='tpu'", "cpu"]),
        (["--out", "full"], ["--out full", "no recipe.yaml"]),
    ],
)
def test_errors_are_one_sentence_and_code_2(args, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    code, said = in_process(capsys, monkeypatch, "compare", *args)
    assert code == 2
    for word in words:
        assert word in said


def test_an_error_of_a_real_process_shows_no_traceback(tmp_path):
    done = bisam("compare", "--methods", "sgd,asam+fishersam", cwd=tmp_path)
    assert done.returncode == 2
    assert "both choose the geometry" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_recipes_are_listed_shown_and_copied(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = bisam("recipes", "list", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["table1-cifar10"]["runs"] == 5 * 3 * 6
    assert in_process(capsys, monkeypatch, "recipes", "copy", "digits", "mine.yaml")[0] == 0
    assert (tmp_path / "mine.yaml").read_text().startswith("# The demo")
    code, said = in_process(capsys, monkeypatch, "recipes", "copy", "digits", "mine.yaml")
    assert code == 2
    assert "--force" in said
    code, said = in_process(capsys, monkeypatch, "recipes", "show", "digitz")
    assert code == 2
    assert "did you mean digits?" in said


def test_variants_are_compared_each_on_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nmethods: [sgd, sam@rho=0.1, sam@rho=0.2]\nseeds: 2\n"
        "variants: {clean: {data.label_noise: 0}, noisy: {data.label_noise: 0.4}}\n"
    )
    done = bisam("compare", "mine.yaml", "--out", "s", "--json", *TINY, "train.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [outcome["variant"] for outcome in told["outcomes"]] == ["clean", "noisy"]
    assert [row["method"] for row in told["outcomes"][0]["rows"]] == ["sgd", "sam@rho=0.1", "sam@rho=0.2"]
    assert (tmp_path / "s" / "figure-noisy.png").exists()
    assert (tmp_path / "s" / "table.md").read_text().count("## ") == 2
    assert len(list((tmp_path / "s").glob("runs/noisy/*/seed-*/result.json"))) == 6
    one = bisam("compare", "mine.yaml", "--out", "s", "--variants", "noisy", *TINY, "train.epochs=1", cwd=tmp_path)
    assert "6 of 6 runs finished before" in one.stdout


@pytest.mark.slow
def test_a_stack_shows_its_runs_and_the_same_table(tmp_path):
    args = ["compare", "--methods", "sgd,sam", "--seeds", "2", "--jobs", "1", "--out", "s", *TINY]
    done = bisam(*args, "--stack", "on", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert re.search(r"all runs: trained 4 at a time: one pass of them takes \d+\.\d\d of the time one by one", words)
    assert len(re.findall(r"(?:sgd|sam) seed [01]: test", words)) == 4
    lines = [json.loads(line) for line in (tmp_path / "s" / "results.jsonl").read_text().splitlines()]
    assert [line["environment"]["stack"] for line in lines] == [4] * 4
    assert "4 of 4 runs finished before" in bisam(*args, "--stack", "off", cwd=tmp_path).stdout


@pytest.mark.slow
def test_two_calls_on_one_folder_share_the_work(tmp_path):
    """And leave to a third, here this test, the run that it has in hand."""
    args = ["compare", "--methods", "sgd,sam", "--seeds", "2", "--jobs", "1", "--out", "s", *TINY, "train.epochs=10"]
    third = tmp_path / "s" / "runs" / "sam" / "seed-1"
    first = start(*args, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "s" / "recipe.yaml").exists())
    third.mkdir(parents=True)
    with FileLock(third / ".lock"):
        both = [first, start(*args, cwd=tmp_path)]
        told = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all("sam seed 1 is being trained by another process" in text for text in told)
    assert len(finished(tmp_path / "s")) == 3
    trained = [line for text in told for line in text.splitlines() if ": test" in line]
    assert len({line.partition(":")[0] for line in trained}) == 3
    done = bisam(*args, cwd=tmp_path)
    assert "3 of 4 runs finished before" in done.stdout
    assert len(finished(tmp_path / "s")) == 4
    assert not (tmp_path / "s" / "quarantine").exists()


def test_a_newer_study_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "recipe.yaml").write_text("name: x\n")
    for text, words in (('{"schema": 99}', "update it"), ("{", "damaged")):
        (tmp_path / "s" / "study.json").write_text(text)
        code, said = in_process(capsys, monkeypatch, "compare", "--out", "s")
        assert code == 2
        assert words in said


def test_the_shell_completes_commands_and_recipes(tmp_path, monkeypatch):
    monkeypatch.setitem(ENV, "_BISAM_COMPLETE", "complete_bash")
    for words, found in (
        ("bisam comp", "compare"),
        ("bisam compare finetune-", "finetune-efficientnet\nfinetune-flowers\nfinetune-minilm\nfinetune-pets"),
    ):
        monkeypatch.setitem(ENV, "COMP_WORDS", words)
        monkeypatch.setitem(ENV, "COMP_CWORD", str(len(words.split()) - 1))
        assert bisam(cwd=tmp_path).stdout.strip() == found


def test_help_and_version(tmp_path):
    assert "--label-noise" in bisam("compare", "--help", cwd=tmp_path).stdout
    assert re.fullmatch(r"bisam \d+\.\d+\.\d+\n", bisam("--version", cwd=tmp_path).stdout)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_real_sets_from_end_to_end(name, tmp_path, real_data):
    done = bisam(
        *("compare", name, "--data-dir", str(real_data(name)), "--methods", "sgd,bisam-tanh", "--seeds", "1"),
        *("--label-noise", "0.2", "--out", "s", "data.train_size=300", "data.validation_size=100", "data.image_size=8"),
        *("model.options.width=4", "train.epochs=1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bisam-tanh" in done.stdout


def test_train_deletes_nothing_that_it_did_not_write(tmp_path, capsys, monkeypatch):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "measured.csv").write_text("precious")
    code, said = in_process(capsys, monkeypatch, "train", "digits", *TINY, "--out", str(tmp_path))
    assert code == 2
    assert "holds files of another kind" in said
    assert (tmp_path / "csv" / "measured.csv").read_text() == "precious"


@pytest.mark.parametrize("word", ["[/x]", "[red]", r"[bold\]"])
def test_brackets_are_shown_as_they_are(word, capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "compare", word)
    assert code == 2
    assert word in said.replace("\\\\", "\\")


def test_a_folder_with_brackets(tmp_path):
    done = bisam("train", "digits", *TINY, "--method", "sgd", "--out", "[red]/[/x]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in [red]/[/x]" in done.stdout


def test_seeds_have_an_end(capsys, monkeypatch):
    code, said = in_process(capsys, monkeypatch, "train", "digits", "--seed", str(2**32))
    assert code == 2
    assert "4294967295" in said
