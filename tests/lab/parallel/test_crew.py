"""Runs of a study that several processes train together: on each engine, killed, and told to stop."""

import contextlib
import json
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from bisam_lab.parallel.crew import crew
from bisam_lab.parallel.events import EpochDone, Note
from bisam_lab.parallel.processes import context
from bisam_lab.parallel.worker import begin, send
from bisam_lab.run.checkpoint import read

from ..test_cli import bisam, finished, start, wait_for
from .test_clusters import jobs, numbers, parent, processes

pytestmark = pytest.mark.slow
STUDY = [
    *("digits", "data.train_size=96", "data.validation_size=50", "model.options.width=8", "train.batch_size=8"),
    *("train.epochs=6", "train.lr=0.02", "methods=[sgd,sam]", "seeds=1", "engine.accelerator=cpu", "engine.devices=2"),
]


class Heard:
    """What the members of a crew have reported."""

    def __init__(self):
        self.events = []

    def put(self, event):
        self.events.append(event)


def _meet(number):
    """Tell which process this is, and what all of them hold together."""
    torch.distributed.init_process_group("gloo")
    total = torch.tensor([number + int(os.environ["RANK"])])
    torch.distributed.all_reduce(total)
    send(EpochDone(f"from {os.environ['RANK']}", 1, 2, 0.5))
    yield int(os.environ["RANK"]), int(total), torch.get_num_threads()
    yield "the end"


def _end_badly(how):
    if int(os.environ["RANK"]) == 1:
        how()
    yield "begun"
    torch.distributed.init_process_group("gloo")  # waits for the other, which is gone


def _raise():
    raise OSError("the disk\nis full")


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _by_worker(job, *args):
    """Run a crew in a process of its own, as engines do: what it yields, what it reports, and how it fails."""
    heard, found = Heard(), []
    begin(heard, 4)
    try:
        found.extend(crew("a job", 2, job, *args))
    except ChildProcessError as error:
        return found, heard.events, str(error)
    return found, heard.events, None


def in_worker(job, *args):
    with ProcessPoolExecutor(1, context()) as worker:
        return worker.submit(_by_worker, job, *args).result(timeout=120)


def test_a_crew_meets_and_the_first_speaks():
    assert in_worker(_meet, 10) == ([(0, 21, 2), "the end"], [EpochDone("from 0", 1, 2, 0.5)], None)


def test_a_crew_that_loses_a_member_starts_again_a_few_times():
    found, heard, failed = in_worker(_end_badly, _kill)
    said = "process 1 of the run was killed (SIGKILL, perhaps because memory ran out)"
    assert heard == [Note("a job", f"{said}; it is started again")] * 2
    assert failed == f"{said}, 3 times"
    assert set(found) <= {"begun"}


def test_an_error_of_a_member_ends_the_crew():
    assert in_worker(_end_badly, _raise)[1:] == ([], "process 1 of the run failed (is full)")


def _for_ever():
    yield os.getpid()
    signal.pause()


def _take_one():
    begin(Heard(), 1)
    with contextlib.closing(crew("a job", 2, _for_ever)) as found:
        return next(found)


def test_who_has_enough_ends_the_crew():
    with ProcessPoolExecutor(1, context()) as worker:
        first = worker.submit(_take_one).result(timeout=120)
        wait_for(lambda: first not in processes(""), 10)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What the command finds on this machine, and where."""
    cwd = tmp_path_factory.mktemp("local")
    done = bisam("compare", *STUDY, "--keep-weights", "--out", "s", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "s"


def test_a_run_of_a_study_is_that_of_bisam_train(local, tmp_path):
    out = tmp_path / "run"
    done = bisam("train", *STUDY, "--method", "sam", "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = local / "runs" / "sam" / "seed-0"
    mine, other = (json.loads((folder / "result.json").read_text()) for folder in (out, theirs))
    assert mine["environment"]["processes"] == other["environment"]["processes"] == 2
    assert [e["train_loss"] for e in mine["history"]] == [e["train_loss"] for e in other["history"]]
    weights = [read(folder / "checkpoints" / "best.pt")["model"] for folder in (out, theirs)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not (theirs / "checkpoints" / "last.pt").exists()


def test_measures_are_taken_later_on_one_device(local):
    done = bisam("compare", *STUDY, "--measures", "calibration", "--out", str(local), cwd=local)
    assert done.returncode == 0, done.stderr
    assert all("calibration" in json.loads(path.read_text())["measures"] for path in finished(local))


@pytest.mark.parametrize("engine", [["slurm", "--slurm", "cluster=local"], ["ray"]], ids=["slurm", "ray"])
def test_numbers_are_the_same_on_each_engine(local, tmp_path, engine):
    done = bisam("compare", *STUDY, "--engine", *engine, "--out", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert numbers(tmp_path / "s") == numbers(local)


def members(driver):
    """The processes that train a run together: each is forked by a server of the worker, which is forked by another."""
    found = [driver]
    for _ in range(4):
        found = [pid for pid in processes("") if parent(pid) in found]
    return found


def losses(out):
    """Training losses that the runs in the folder have logged."""
    return [path for path in out.glob("runs/*/seed-*/csv/metrics.csv") if path.read_text().count("\n") > 1]


def test_a_process_is_killed_and_the_run_goes_on(local, tmp_path):
    args = ["--method", "sam", "--seeds", "1", "--checkpoint-every", "0", "--out", "runs/sam"]
    driver = start("train", *STUDY, *args, cwd=tmp_path)
    wait_for(lambda: losses(tmp_path))
    os.kill(members(driver.pid)[-1], signal.SIGKILL)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert "of the run was killed (SIGKILL, perhaps because memory ran out); it is started again" in output
    assert "goes on from epoch" in output
    assert "Traceback" not in output
    assert "terminat" not in output.lower(), output
    assert numbers(tmp_path) == {("sam", 0): numbers(local)["sam", 0]}


def test_ctrl_c_saves_and_the_same_command_goes_on(local, tmp_path):
    command = ["compare", *STUDY, "--out", "s"]
    driver = start(*command, cwd=tmp_path)
    wait_for(lambda: losses(tmp_path / "s"))
    there = members(driver.pid)
    assert len(there) == 2
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 130, output
    assert not set(there) & set(processes("")), "processes are left"
    assert list((tmp_path / "s").glob("runs/*/seed-0/checkpoints/last.pt"))
    done = bisam(*command, cwd=tmp_path)
    assert "goes on from epoch" in done.stdout, done.stdout + done.stderr
    assert numbers(tmp_path / "s") == numbers(local)


def test_a_run_that_another_machine_takes_is_left_to_it(tmp_path):
    """Where a file system knows no locks, the name in a file says who trains it."""
    args = ["--method", "sam", "--seeds", "1", "train.epochs=9999", "--out", "runs/sam"]
    driver = start("train", *STUDY, *args, cwd=tmp_path)
    wait_for(lambda: losses(tmp_path))
    holder = tmp_path / "runs" / "sam" / "seed-0" / ".holder"
    holder.write_text('{"node": "another", "process": 1, "name": "theirs"}')
    output, _ = driver.communicate(timeout=90)
    assert "another process" in output
    assert "theirs" in holder.read_text()
    assert not (holder.parent / "result.json").exists()


def test_slurm_announces_the_end_to_all_processes_of_a_job(local, tmp_path):
    command = ["compare", *STUDY, "methods=[sam]", "--engine", "slurm", "--slurm", "cluster=local", "--out", "s"]
    driver = start(*command, cwd=tmp_path)
    wait_for(lambda: losses(tmp_path / "s"))
    ((_, job),) = jobs(tmp_path / "s").items()
    tree = [job]
    for _ in range(4):
        tree += [pid for pid in processes("") if parent(pid) in tree and pid not in tree]
    trackers = processes("resource_tracker")  # Python's own, of which Slurm asks the same
    told = [pid for pid in tree[1:] if pid not in trackers]
    assert len(told) >= 4, "the job, its server, and two that train"
    for pid in told:
        os.kill(pid, signal.SIGUSR2)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert "sam seed 0: goes on from epoch" in output
    assert "was killed" not in output
    assert numbers(tmp_path / "s") == {("sam", 0): numbers(local)["sam", 0]}


def test_a_worker_that_is_killed_takes_its_crew_with_it(tmp_path):
    driver = start("compare", *STUDY, "--out", "s", cwd=tmp_path)
    wait_for(lambda: losses(tmp_path / "s"))
    there = members(driver.pid)
    os.kill(parent(parent(there[0])), signal.SIGKILL)
    driver.communicate(timeout=90)
    assert driver.returncode == 1
    wait_for(lambda: not set(there) & set(processes("")), 20)
