"""Audits of several checkpoints, each a task of an engine. Whatever is killed, the numbers are those of one by one."""

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bisam_lab
from bisam_lab.auditing.checkpoint import Place
from bisam_lab.auditing.folder import Audits
from bisam_lab.auditing.grid import kept_below
from bisam_lab.auditing.task import Asked, task_of
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.checkpoint import read
from bisam_lab.run.environment import cores
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell

from ..parallel.test_clusters import jobs, parent, processes
from ..test_cli import TINY, bisam, in_process, start, wait_for, workers
from .test_command import SMALL, audited

ADVERSARIES = ["--adversaries", "sam,bisam-log,random", "--rhos", "0.1,0.2"]


def epochs(run):
    return sorted(str(path) for path in (run / "checkpoints").glob("epoch-*.pt"))


def numbers(audits):
    """What was measured, without the time and the machine."""
    return [{key: one[key] for key in one if key != "environment"} for one in audits]


def test_two_at_a_time_find_what_one_after_the_other_does(run, tmp_path, monkeypatch, capsys):
    files, words = epochs(run), [*SMALL, *ADVERSARIES]
    both = audited(monkeypatch, capsys, *files, *words, "--jobs", "2", "--out", str(tmp_path / "two"))["audits"]
    before = torch.get_num_threads()
    torch.set_num_threads(both[0]["environment"]["threads"])
    try:
        singly = [
            audited(monkeypatch, capsys, file, *words, "--out", str(tmp_path / str(i)))["audits"][0]
            for i, file in enumerate(files)
        ]
    finally:
        torch.set_num_threads(before)
    assert numbers(both) == numbers(singly)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["audit.html", "audit.json"]


@given(st.permutations(range(4)), st.integers(0, 4), st.booleans())
def test_the_order_is_the_commands_and_what_nobody_has_read_is_not_lost(order, read, written):
    """``read`` of the four are added before the command is killed; the workers have kept all."""
    places = [Place(f"n{i}", RECIPE, i, None, None, i, own=True) for i in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        tasks = [task_of(place, ASKED, Path(folder)) for place in places]
        first = Audits(Path(folder), tasks, "bisam audit", write_nothing)
        for done, i in enumerate(order):
            tasks[i].write(tasks[i].named({"stopped": False, "value": i}))
            if done < read:
                first.add(tasks[i].mark, tasks[i].read())
        if written:
            first.write()
        again = Audits(Path(folder), tasks, "bisam audit", write_nothing)
        assert [one["value"] for one in again.found] == [0, 1, 2, 3]
        again.write()
        assert [path.name for path in Path(folder).iterdir()] == ["audit.json"]


RECIPE, ASKED = load("digits"), Asked(None, None, 2, None, None, sharpness=False)


def write_nothing(audits, command, path):
    pass


NETS = """
from torch import nn

def good(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

class Breaks(nn.Linear):
    def __init__(self, classes, error):
        super().__init__(64, classes)
        self.error, self.calls = error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 3:
            raise self.error
        return super().forward(x)

def bad(num_classes):
    return nn.Sequential(nn.Flatten(), Breaks(num_classes, RuntimeError("no such layer")))

def gone(num_classes):
    return nn.Sequential(nn.Flatten(), Breaks(num_classes, SystemExit("left")))
"""


def test_what_fails_is_one_line_that_names_it_and_the_others_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETS)
    words = ["net.py:bad", "net.py:good", "net.py:gone", "--recipe", "digits", *SMALL, *ADVERSARIES]
    monkeypatch.setattr(sys, "argv", ["bisam", "audit", *words, "--out", "a"])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    told = capsys.readouterr()
    assert left.value.code == 1
    assert "net.py:bad failed: the network raised RuntimeError: no such layer; the same command" in told.out
    assert "net.py:gone failed: SystemExit: left; the same command" in told.out
    assert "Traceback" not in told.out + told.err
    kept = json.loads((tmp_path / "a" / "audit.json").read_text())["audits"]
    assert [one["name"] for one in kept] == ["net.py:good"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs as a study and ``bisam train`` leave them, of which two are no use to an audit."""
    root = tmp_path_factory.mktemp("study")
    recipe = load("digits", [*TINY, "methods=[sam]", "seeds=1"])
    for seed, options in ((10, {"keep_weights": True}), (2, {"keep": True, "keep_every": 1}), (3, {})):
        run_cell(recipe, Run("", seed, "sam"), root / "runs" / "sam" / f"seed-{seed}", **options)
    unfinished = root / "runs" / "sam" / "seed-4" / "checkpoints"
    unfinished.mkdir(parents=True)
    (unfinished / "best.pt").touch()
    return root


def test_a_grid_is_all_that_the_finished_runs_of_a_folder_have_kept(study, tmp_path, monkeypatch, capsys):
    files, note = kept_below(str(study))
    assert [Path(file).relative_to(study / "runs" / "sam").as_posix() for file in files] == [
        *(f"seed-2/checkpoints/epoch-000{epoch}.pt" for epoch in range(3)),
        "seed-10/checkpoints/best.pt",
    ]
    assert note == f"Runs that are left out in {study}: 1 without weights, 1 unfinished."
    monkeypatch.chdir(tmp_path)
    found = audited(monkeypatch, capsys, str(study), "--grid", *SMALL, "--adversaries", "sam", "--rhos", "0.1")
    names = [one["name"] for one in found["audits"]]
    assert names[:3] == [f"digits sam seed 2, epoch {epoch}" for epoch in range(3)]
    assert re.fullmatch(r"digits sam seed 10, epoch \d", names[3])
    assert found["folder"] == f"audits/{study.name}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nowhere", r"--grid 'nowhere': there is no such folder"),
        (".", r"no finished run there has kept weights: bisam compare --keep-weights"),
    ],
)
def test_a_grid_of_nothing_is_refused(word, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=said):
        kept_below(word)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray-address", "auto"], "--ray-address has no effect with --engine local: say --engine ray"),
        (["--gpus-per-run", "1"], "have no effect on this machine: say --jobs, or --engine ray or slurm"),
        (["--engine", "slurm", "--slurm", "cluster=pbs"], "--slurm cluster=pbs: say slurm, or local"),
    ],
)
def test_what_no_engine_can_do_is_one_line_and_makes_no_folder(words, said, run, tmp_path, monkeypatch, capsys):
    code, told = in_process(capsys, monkeypatch, "audit", str(run), *words, "--out", str(tmp_path / "a"))
    assert (code, said in told) == (2, True), told
    assert not list(tmp_path.iterdir())


LONG = ["--batch-size", "6", "--batches", "16", "--adversaries", "sam,projected"]
LONG += ["--rhos", ",".join(f"{k / 100}" for k in range(1, 7))]
TWO = ["--jobs", "2", "--out", "a"]
#: As many threads as two jobs have here.
CLUSTER = ["--cpus-per-run", str(max(1, cores() // 2))]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """What two processes of this machine find that nobody disturbs."""
    cwd = tmp_path_factory.mktemp("whole")
    done = bisam("audit", *epochs(run)[1:], *LONG, *TWO, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return there(cwd)


def there(cwd):
    return numbers(json.loads((cwd / "a" / "audit.json").read_text())["audits"])


def both_begun(cwd):
    """Wait until two audits have measured two of their batches, from which on there are intervals."""
    wait_for(lambda: sum(measured(path) >= 2 for path in (cwd / "a").glob(".measured-*")) == 2)


def measured(journal):
    return len({at_w["batch"] for at_w in read(journal)["at_w"]})


def left_over(cwd):
    return sorted(path.name for path in (cwd / "a").iterdir())


SLURM, RAY = ["--engine", "slurm", "--slurm", "cluster=local", *CLUSTER], ["--engine", "ray", *CLUSTER]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [[], RAY, SLURM], ids=["local", "ray", "slurm"])
def test_ctrl_c_shows_what_two_have_measured_and_the_same_command_goes_on(engine, run, whole, tmp_path):
    words = ["audit", *epochs(run)[1:], *LONG, *TWO, *engine]
    process = start(*words, cwd=tmp_path)
    both_begun(tmp_path)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "What is done is kept" in output
    stopped = there(tmp_path)
    assert stopped, output
    for one in stopped:
        assert one["stopped"] and 2 <= one["batches"] < 16
        assert f"It was stopped after {one['batches']} of 16 batches." in output
    assert "It was stopped after" in (tmp_path / "a" / "audit.html").read_text()
    again = bisam(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("goes on after") == 2
    assert there(tmp_path) == whole
    assert left_over(tmp_path) == ["audit.html", "audit.json"]


@pytest.mark.slow
def test_a_worker_that_is_killed_here_is_one_sentence_and_the_same_command_goes_on(run, whole, tmp_path):
    words = ["audit", *epochs(run)[1:], *LONG, *TWO]
    process = start(*words, cwd=tmp_path)
    both_begun(tmp_path)
    os.kill(workers(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    assert "A process was killed, perhaps because memory ran out. The same command continues" in output
    assert "Traceback" not in output
    again = bisam(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("goes on after") == 2
    assert there(tmp_path) == whole


@pytest.mark.slow
def test_ray_starts_an_audit_again_whose_worker_is_killed(run, whole, tmp_path):
    process = start("audit", *epochs(run)[1:], *LONG, *TWO, *RAY, cwd=tmp_path)
    both_begun(tmp_path)
    os.kill(next(pid for pid in processes("ray::_work") if descends(pid, process.pid)), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "its process or node has died; it is started again" in output
    assert "goes on after" in output
    assert there(tmp_path) == whole


def descends(pid, ancestor):
    while pid > 1 and pid != ancestor:
        pid = parent(pid)
    return pid == ancestor


@pytest.mark.slow
def test_slurm_preempts_an_audit_and_loses_another_and_the_command(run, whole, tmp_path):
    words = ["audit", *epochs(run)[1:], *LONG, *TWO, *SLURM]
    driver = start(*words, cwd=tmp_path)
    both_begun(tmp_path)
    driver.kill()
    driver.wait()
    driver.stdout.close()  # not read to its end: the jobs have it open, and go on
    (_, killed), (_, preempted) = sorted(jobs(tmp_path / "a").items())
    os.kill(preempted, signal.SIGTERM)  # as Slurm does, before the grace time ends
    logs = tmp_path / "a" / ".slurm" / f"{preempted}_0_log.out"
    wait_for(lambda: "Requeued" in (logs.read_text() if logs.exists() else ""), 60)
    again = start(*words, cwd=tmp_path)
    for pid in [*(pid for pid in processes("submitit.core._submit") if parent(pid) == killed), killed]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert re.search(rf"^digits bisam-log seed 3, epoch \d: its job {preempted} is queued or running$", output, re.M), (
        output
    )
    assert there(tmp_path) == whole
    assert left_over(tmp_path) == ["audit.html", "audit.json"]
