"""Studies in a real S3 server, by several machines: each has a working copy of its own. Processes are killed.

Whatever dies, the study ends complete, each run ends once, and the numbers are those of a folder to the bit.
"""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from bisam_lab.study.store import Store, _system

from ..parallel.test_clusters import STUDY, numbers
from ..test_cli import BISAM, ENV, wait_for
from .storage import Gate, s3, variables

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # botocore's and Ray's own
RUNS = ["sam seed 0", "sam seed 1", "sgd seed 0", "sgd seed 1"]


@pytest.fixture(scope="module")
def running():
    with s3() as found:
        yield found


@pytest.fixture(scope="module")
def server(running):
    """The server's port."""
    return running[0]


@pytest.fixture
def results_put(running, request):
    """Return a function that says how often a machine has come with a result: each time that a run ended."""
    folder = re.sub(r"\W+", "-", request.node.name)
    return lambda: sorted(re.findall(rf"PUT /bucket/{folder}/runs/(\S+)/result.json", running[1].read_text()))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What a study in a folder finds."""
    cwd = tmp_path_factory.mktemp("local")
    done = Machine(cwd, 1)("compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", "s")
    assert done.returncode == 0, done.stdout
    return numbers(cwd / "s")


class Machine:
    """Calls the command as a machine of its own."""

    def __init__(self, cwd, port):
        self.cwd, self.cache = cwd, cwd / "cache"
        cwd.mkdir(exist_ok=True)
        self._how = {"cwd": cwd, "env": ENV | variables(port, self.cache), "text": True}
        self._how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def __call__(self, *args):
        return subprocess.run([BISAM, *args], **self._how, timeout=400, check=False)

    def start(self, *args):
        return subprocess.Popen([BISAM, *args], **self._how, start_new_session=True)

    def study(self):
        """Return the folder of its working copy."""
        (found,) = self.cache.glob("*/*/recipe.yaml")
        return found.parent


@pytest.fixture
def storage(server, monkeypatch, request, tmp_path):
    """Return the URL of an empty folder, and its objects."""
    for name, value in variables(server, tmp_path).items():
        monkeypatch.setenv(name, value)
    _system.cache_clear()
    url = "s3://bucket/" + re.sub(r"\W+", "-", request.node.name)
    return url, Store(url)


def ends(output):
    return sorted(re.findall(r"^(\w+ seed \d): test", output, re.M))


def test_two_machines_train_each_run_once(tmp_path, server, storage, local, results_put):
    url, store = storage
    one, two = Machine(tmp_path / "one", server), Machine(tmp_path / "two", server)
    args = ["compare", *STUDY, "--jobs", "2", "--stack", "off", "--watch", "--out", url]
    first, second = one.start(*args), two.start(*args)
    outputs = [process.communicate(timeout=400)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    assert set(ends(outputs[0]) + ends(outputs[1])) == set(RUNS), outputs
    assert results_put() == ["sam/seed-0", "sam/seed-1", "sgd/seed-0", "sgd/seed-1"]
    assert numbers(one.study()) == numbers(two.study()) == local
    names = set(store.list())
    assert not [name for name in names if ".holder" in name or name.endswith(".pt") or ".now" in name]
    assert {"table.md", "figure.png", "results.csv", "recipe.yaml"} <= names
    third = Machine(tmp_path / "three", server)
    again = third("compare", *STUDY, "seeds=3", "--jobs", "2", "--stack", "off", "--out", url)
    assert "4 of 6 runs finished before" in " ".join(again.stdout.split()), again.stdout
    assert ends(again.stdout) == ["sam seed 2", "sgd seed 2"]
    page = third("report", url)
    assert page.stdout.split() == [f"{url}/report.html"]
    assert url.encode() in store.read("report.html")


def test_a_machine_dies_and_another_goes_on_from_the_storage(tmp_path, server, storage):
    url, store = storage
    args = ["train", *STUDY[:-2], "--method", "sam", "--checkpoint-every", "0.3", "train.epochs=100"]
    alone = Machine(tmp_path / "alone", server)(*args, "--out", "s")
    assert alone.returncode == 0, alone.stdout
    one, two = Machine(tmp_path / "one", server), Machine(tmp_path / "two", server)
    killed = one.start(*args, "--out", url)
    wait_for(lambda: "checkpoints/last.pt" in store.list())
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "result.json" not in store.list(), "it had ended before it was killed"
    busy = two(*args, "--out", url)
    assert "another process is training this run" in " ".join(busy.stdout.split())
    time.sleep(60)
    done = two(*args, "--out", url)
    assert done.returncode == 0, done.stdout
    assert "goes on from epoch" in done.stdout
    assert losses(next(two.cache.glob("*/*/result.json"))) == losses(tmp_path / "alone" / "s" / "result.json")
    audited = one("audit", url, "--batches", "2", "--out", "a")
    assert audited.returncode == 0, audited.stdout


def losses(path):
    stored = json.loads(path.read_text())
    return stored["test_score"], [(e["train_loss"], e["validation_score"]) for e in stored["history"]]


def test_a_machine_that_was_killed_goes_on_at_once(tmp_path, server, storage, local):
    """Its own lock tells it that the process which held the runs is dead."""
    url, store = storage
    machine = Machine(tmp_path, server)
    args = ["compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", url]
    process = machine.start(*args)
    wait_for(lambda: any("/.holders/" in name for name in store.list()))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = machine(*args)
    assert done.returncode == 0, done.stdout
    assert numbers(machine.study()) == local


@pytest.fixture
def gate(server):
    gate = Gate(server)
    yield gate
    gate.close()


def test_a_storage_that_does_not_answer_for_a_while(tmp_path, gate, storage, local):
    url, store = storage
    machine = Machine(tmp_path, gate.port)
    process = machine.start("compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", url)
    wait_for(lambda: len(list(machine.cache.glob("*/*/runs/*/*/csv/metrics.csv"))) == 2)
    gate.shut()
    time.sleep(20)
    gate.open = True
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert numbers(machine.study()) == local
    assert len([name for name in store.list() if name.endswith("/result.json")]) == 4


def test_a_storage_that_does_not_answer_at_the_end(tmp_path, gate, storage):
    url, store = storage
    machine = Machine(tmp_path, gate.port)
    args = ["compare", *STUDY, "methods=[sgd]", "seeds=1", "--out", url]
    process = machine.start(*args)
    wait_for(lambda: list(machine.cache.glob("*/*/runs/*/*/csv/metrics.csv")))
    gate.shut()
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1, output
    assert "the storage refuses or does not answer" in " ".join(output.split())
    assert "runs/sgd/seed-0/result.json" not in store.list()
    kept = numbers(machine.study())
    gate.open = True
    done = machine(*args)
    assert done.returncode == 0, done.stdout
    assert "1 of 1 runs finished before" in " ".join(done.stdout.split())
    assert "runs/sgd/seed-0/result.json" in store.list()
    assert numbers(machine.study()) == kept


def test_a_damaged_result_and_half_an_upload(tmp_path, server, storage, local):
    url, store = storage
    machine = Machine(tmp_path / "one", server)
    args = ["compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", url]
    assert machine(*args).returncode == 0
    name = "runs/sam/seed-1/result.json"
    store.write(name, store.read(name)[:500])
    key = url.removeprefix("s3://bucket/") + "/runs/sam/seed-1/checkpoints/last.pt"
    upload = _system("s3").call_s3("create_multipart_upload", Bucket="bucket", Key=key)
    part = {"Bucket": "bucket", "Key": key, "UploadId": upload["UploadId"], "PartNumber": 1, "Body": b"half of it"}
    _system("s3").call_s3("upload_part", **part)
    other = Machine(tmp_path / "two", server)
    done = other(*args)
    assert done.returncode == 0, done.stdout
    assert f"{url}/quarantine/sam-seed-1.1" in "".join(done.stdout.split())
    assert ends(done.stdout) == ["sam seed 1"]
    assert numbers(other.study()) == local
    assert {"quarantine/sam-seed-1.1/result.json", "quarantine/sam-seed-1.1/REASON.txt"} <= set(store.list())


@pytest.mark.parametrize("engine", [["slurm", "--slurm", "cluster=local"], ["ray"]])
def test_clusters_take_a_url(tmp_path, server, storage, local, engine):
    url, store = storage
    machine = Machine(tmp_path, server)
    done = machine("compare", *STUDY, "--jobs", "2", "--stack", "off", "--out", url, "--engine", *engine)
    assert done.returncode == 0, done.stdout
    assert ends(done.stdout) == RUNS
    assert numbers(machine.study()) == local
    assert len([name for name in store.list() if name.endswith("/result.json")]) == 4


def test_ctrl_c_takes_the_state_there(tmp_path, server, storage):
    url, store = storage
    one, two = Machine(tmp_path / "one", server), Machine(tmp_path / "two", server)
    args = ["train", *STUDY[:-2], "train.epochs=9999", "--method", "sgd", "--seeds", "2", "--jobs", "2", "--out", url]
    process = one.start(*args)
    wait_for(lambda: len(list(one.cache.glob("*/*/seed-*/csv/metrics.csv"))) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert {f"seed-{k}/{name}" for k in (0, 1) for name in ("checkpoints/last.pt", "run.yaml")} <= set(store.list())
    assert not [name for name in store.list() if ".holder" in name]
    again = two.start(*args)
    wait_for(lambda: len(list(two.cache.glob("*/*/seed-*/csv/metrics.csv"))) == 2)
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=90)
    assert "sgd seed 0: goes on from epoch" in output


@pytest.mark.parametrize(
    ("changes", "url", "said"),
    [
        ({}, "s3://no-such-bucket/x", "The specified bucket does not exist"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://bucket/x", "Could not connect"),
        ({"AWS_ACCESS_KEY_ID": ""}, "s3://bucket/x", "Unable to locate credentials"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_sentence_at_once(tmp_path, server, changes, url, said):
    env = ENV | variables(server, tmp_path / "cache") | changes | {"HOME": str(tmp_path), "COLUMNS": "400"}
    env = {name: value for name, value in env.items() if value}
    done = subprocess.run(
        [BISAM, "compare", *STUDY, "--out", url], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {url}: the storage refuses or does not answer ({said}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("[!.]*"))
