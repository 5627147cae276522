"""Where runs go, and what is refused before anything starts."""

import shutil

import pytest
from submitit import AutoExecutor

from bisam_lab.parallel.engine import Engine
from bisam_lab.parallel.pools import at_once, check, on_cpu, threads
from bisam_lab.parallel.submitting import cluster_of, minutes
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.environment import cores

from ..test_cli import in_process

RECIPE = load("digits", ["engine.accelerator=cpu"])
HERE = {"cluster": "local"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "rai"], "'rai' is not one of 'local', 'ray', 'slurm'"),
        (["--ray-address", "auto"], "--ray-address has no effect with --engine local: say --engine ray"),
        (["--engine", "ray", "--slurm", "time=5"], "--slurm has no effect with --engine ray: say --engine slurm"),
        (["--gpus-per-run", "1"], "have no effect on this machine: say --jobs, or --engine ray or slurm"),
        (["--engine", "ray", "--gpus-per-run", "1.5"], "--gpus-per-run 1.5: say 0, a fraction such as 0.5"),
        (["--engine", "ray", "--gpus-per-run", "nan"], "--gpus-per-run nan: say 0, a fraction such as 0.5"),
        (["--engine", "ray", "--ray-address", "ray://a:1"], "run bisam on a node of it, with --ray-address auto"),
        (["--engine", "ray", "--ray-address", "127.0.0.1:1"], "--ray-address 127.0.0.1:1: nobody answers"),
        (["--engine", "slurm", "--slurm", "cluster=pbs"], "--slurm cluster=pbs: say slurm, or local"),
        (["--engine", "slurm", "--slurm", "cluster"], "--slurm 'cluster': say KEY=VALUE"),
        (["--engine", "slurm", "--slurm", "cluster=local,time=soon"], "time=soon: say minutes, or 1:30:00"),
        (["--engine", "slurm", "--slurm", "cluster=local,requeue=-1"], "requeue=-1: say a whole number"),
        (["--engine", "slurm", "--slurm", "cluster=local,partitoin=a"], "partitoin: no setting of a job: did you mean"),
        (["--engine", "slurm", "--slurm", "cluster=local,array_parallelism=3"], "array_parallelism: say --jobs N"),
        (["--engine", "slurm", "--slurm", "cluster=local", "--gpus-per-run", "0.5"], "Slurm gives whole ones: say 1"),
        (["--cpus-per-run", "0"], "'--cpus-per-run'"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "tune"])
def test_what_no_engine_can_do_is_one_line_and_makes_no_folder(capsys, monkeypatch, tmp_path, command, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    code, said = in_process(capsys, monkeypatch, command, "digits", *words)
    assert code != 0
    assert told in said
    assert not list(tmp_path.iterdir())


def test_a_machine_without_slurm_says_how_to_try_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"on a login node of the cluster, or try it .* with --slurm cluster=local"):
        check(Engine("slurm"), RECIPE)


@pytest.mark.parametrize(
    ("text", "found"),
    [("90", 90), ("1:30", 2), ("0:10", 1), ("1:30:00", 90), ("2-12:00:00", 3600), ("1:00:01", 61)],
)
def test_times_are_read_as_slurm_writes_them(text, found):
    assert minutes(text) == found


@pytest.mark.parametrize("text", ["", "0", "-5", "1h", "1:2:3:4", "1.5", "9" * 9])
def test_other_times_are_refused(text):
    with pytest.raises(RecipeError, match="say minutes"):
        minutes(text)


def test_slurm_is_asked_for_what_was_said(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(AutoExecutor, "update_parameters", lambda self, **given: asked.update(given))
    settings = {"partition": "gpu", "time": "2:00:00", "memory": "16G", "account": "a1", "nodes": "1"}
    engine = Engine("slurm", jobs=7, cpus=4, gpus=1, slurm={**HERE, **settings})
    found = cluster_of(engine, RECIPE, tmp_path)
    assert asked == {
        "name": "bisam-digits",
        "timeout_min": 120,
        "cpus_per_task": 4,
        "gpus_per_node": 1,
        "slurm_array_parallelism": 7,
        "slurm_partition": "gpu",
        "slurm_mem": "16G",
        "slurm_account": "a1",
        "slurm_nodes": 1,
    }
    assert found.requeue
    assert not cluster_of(Engine("slurm", slurm={**HERE, "requeue": "0"}), RECIPE, tmp_path).requeue
    assert found.room(running=5) == 2


def test_threads_belong_to_a_job_on_a_cluster_and_are_shared_here():
    assert threads(Engine("slurm", cpus=3), RECIPE) == 3
    assert threads(Engine(jobs=1), RECIPE) == cores()
    assert threads(Engine(jobs=10 * cores()), RECIPE) == 1
    assert at_once(Engine(), RECIPE) == cores()
    assert at_once(Engine("slurm"), RECIPE) == 256
    assert at_once(Engine("slurm", slurm=HERE), RECIPE) == cores()


def test_the_jobs_compute_where_they_are_told():
    gpu = load("digits", ["engine.accelerator=auto"])
    assert on_cpu(Engine("ray", gpus=1), RECIPE)
    assert not on_cpu(Engine("ray", gpus=0.5), gpu)
    assert on_cpu(Engine("ray", gpus=0), gpu)
