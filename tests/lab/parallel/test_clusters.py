"""Studies on real clusters of this machine: Ray with two nodes, and submitit's jobs. Processes and a node are killed.

Whatever dies, the study ends complete, each run ends once, and the numbers are those of local processes to the bit.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bisam_lab.parallel.engine import Engine
from bisam_lab.parallel.events import Note
from bisam_lab.parallel.ray import RayPool, check_room
from bisam_lab.recipe import load

from ..test_cli import bisam, finished, in_process, start, wait_for

pytestmark = pytest.mark.slow
STUDY = [
    *("digits", "data.train_size=96", "data.validation_size=50", "model.options.width=2", "train.batch_size=8"),
    *("train.epochs=30", "methods=[sgd,sam]", "seeds=2"),
]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What local processes find."""
    cwd = tmp_path_factory.mktemp("local")
    done = bisam("compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", "s", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return numbers(cwd / "s")


def numbers(out):
    """What the runs found, but for seconds."""
    found = {}
    for path in finished(out):
        stored = json.loads(path.read_text())
        losses = [(e["train_loss"], e["validation_score"]) for e in stored["history"]]
        found[stored["method"], stored["seed"]] = (stored["test_score"], losses)
    return found


def processes(word):
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if word in line]


def check_complete(output, out, local):
    ends = re.findall(r"^(\w+ seed \d): test", output, re.M)
    assert sorted(ends) == ["sam seed 0", "sam seed 1", "sgd seed 0", "sgd seed 1"], output
    assert numbers(out) == local


@pytest.fixture
def two_nodes(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster, cluster.add_node(num_cpus=1)
    finally:
        with contextlib.suppress(Exception):  # one of its nodes is dead
            cluster.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_loses_a_worker_and_a_node(two_nodes, tmp_path, local):
    cluster, node = two_nodes
    args = ["--engine", "ray", "--ray-address", cluster.address, "--stack", "off", "--out", "s"]
    process = start("compare", *STUDY, *args, cwd=tmp_path)
    out = tmp_path / "s"
    wait_for(lambda: len(list(out.glob("runs/*/*/csv/metrics.csv"))) >= 2)
    os.kill(processes("ray::_work")[0], signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "its process or node has died; it is started again" in output
    assert "(raylet)" not in output
    check_complete(output, out, local)


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cpus-per-run", "999"], "a run asks for 999 cores, and this machine has "),
        (["engine.accelerator=cuda"], "a run asks for 1 core and 1 GPU, and this machine has "),
        (["--gpus-per-run", "0.5"], "a run asks for 1 core and 0.5 GPU, and this machine has "),
    ],
)
def test_a_run_larger_than_this_machine_is_refused_and_makes_no_folder(capsys, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    code, said = in_process(capsys, monkeypatch, "compare", "digits", "--engine", "ray", *words)
    assert code == 2
    assert told in said
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_without_room_for_a_run_is_waited_for_and_that_is_said(two_nodes):
    """A cluster may grow."""
    import ray

    recipe = load("digits", ["engine.accelerator=cpu"])
    engine = Engine("ray", ray_address=two_nodes[0].address)
    try:
        assert check_room(engine, recipe) == ""
        told = check_room(replace(engine, cpus=2), recipe)
        assert told.startswith("no node of the cluster has 2 cores: the runs wait for one")
        with RayPool(replace(engine, cpus=2), recipe) as pool:
            assert pool.notes() == [Note("ray", told)]
    finally:
        ray.shutdown()


def test_a_login_node_needs_no_accelerator(tmp_path):
    """What is asked of it alone is whether data and network are there; the job says what its own machine lacks."""
    engine = ["--engine", "slurm", "--slurm", "cluster=local", "engine.accelerator=cuda"]
    done = bisam("compare", *STUDY, *engine, "methods=[sgd]", "seeds=1", "--out", "s", cwd=tmp_path)
    assert done.returncode == 1
    assert "sgd seed 0" in done.stdout + done.stderr
    assert "finds none here" in done.stdout + done.stderr


def jobs(out):
    return {
        tuple(stored["names"]): int(stored["job"])
        for stored in (json.loads(path.read_text()) for path in (out / ".slurm").glob("*.json"))
    }


def test_slurm_preempts_a_job_and_loses_the_driver_and_a_process(tmp_path, local):
    args = ["compare", *STUDY, "--engine", "slurm", "--slurm", "cluster=local", "--jobs", "2"]
    args += ["--stack", "off", "--out", "s"]
    driver, out = start(*args, cwd=tmp_path), tmp_path / "s"
    wait_for(lambda: len(list(out.glob("runs/*/*/csv/metrics.csv"))) == 2)
    driver.kill()
    driver.wait()
    driver.stdout.close()  # not read to its end: the jobs have it open, and go on
    (preempted, number), (_, killed) = sorted(jobs(out).items())
    os.kill(number, signal.SIGTERM)  # as Slurm does, before the grace time ends
    logs = out / ".slurm" / f"{number}_0_log.out"
    wait_for(lambda: "Requeued" in (logs.read_text() if logs.exists() else ""), 60)
    again = start(*args, cwd=tmp_path)
    children = [pid for pid in processes("submitit.core._submit") if parent(pid) == killed]
    for pid in [*children, killed]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert f"{preempted[0]}: its job {number} is queued or running" in output
    assert f"{preempted[0]}: goes on from epoch" in output, "a run that was preempted began again"
    check_complete(output, out, local)
    assert not (out / ".slurm").exists()


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("engine", [["slurm", "--slurm", "cluster=local"], ["ray"]])
def test_ctrl_c_saves_what_a_cluster_runs(tmp_path, engine):
    args = ["compare", *STUDY, "train.epochs=9999", "--jobs", "1", "--stack", "off", "--out", "s"]
    process = start(*args, "--engine", *engine, cwd=tmp_path)
    run = tmp_path / "s" / "runs" / "sgd" / "seed-0"
    wait_for(lambda: (run / "csv" / "metrics.csv").exists())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "What is done is kept" in output
    assert (run / "checkpoints" / "last.pt").exists()
    assert not (run / ".holder").exists()
