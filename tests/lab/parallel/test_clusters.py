"""Studies on real clusters of this machine: Ray with two nodes, and submitit's jobs. Processes and a node are killed.

Whatever dies, the study ends complete, each run ends once, and the numbers are those of local processes to the bit.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from ..test_cli import bisam, finished, start, wait_for

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
