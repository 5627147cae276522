"""A run in a real MLflow server, which the tests start and end."""

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from bisam_lab.recipe import changed, digest, load
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run
from bisam_lab.run.tracking import Tracked
from bisam_lab.study.cell import run_cell

from ..test_cli import ENV, in_process
from .runs import TINY, StopAfter

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of what the client imports
COMMAND = ["train", "digits", *TINY, "train.epochs=3", "--method", "sam"]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [Path(sys.executable).parent / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**ENV, **quiet}, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 240
    try:
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _asked(server, path, **words):
    with urllib.request.urlopen(
        f"{server}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(words)}", timeout=60
    ) as answer:
        return json.load(answer)


def _check(server, folder, experiment, run):
    """The server has what result.json has: each number once, at its step."""
    result = json.loads((folder / "result.json").read_text())
    names = ("train_loss", "validation_score", "learning_rate", "eps_norm", "gradient_norm", "rho")
    for name in names:
        told = _asked(server, "metrics/get-history", run_id=run, metric_key=name)["metrics"]
        assert [(each["step"], each["value"]) for each in told] == [(e["epoch"], e[name]) for e in result["history"]]
    (tested,) = _asked(server, "metrics/get-history", run_id=run, metric_key="test_score")["metrics"]
    assert (tested["step"], tested["value"]) == (result["selected_epoch"], result["test_score"])
    told = _asked(server, "runs/get", run_id=run)["run"]
    assert told["info"]["status"] == "FINISHED"
    assert told["info"]["run_name"] == "sam seed 0"
    named = _asked(server, "experiments/get", experiment_id=told["info"]["experiment_id"])["experiment"]["name"]
    assert named == experiment
    return told["data"]


def test_a_run_that_was_stopped_goes_on_in_the_same_mlflow_run(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    recipe = load("digits", [*TINY, "train.epochs=3"])
    folder, run = tmp_path / "run", Run("", 0, "sam")
    folder.mkdir()
    own = changed(recipe, {("methods",): ["sam"]})
    with pytest.raises(Stopped), Tracked("mine", own, run, folder, StopAfter(4)) as tracked:
        run_cell(own, run, folder, observer=tracked, keep=True)
    known = json.loads((folder / "mlflow.json").read_text())
    assert known["server"] == server
    assert _asked(server, "runs/get", run_id=known["run"])["run"]["info"]["status"] == "KILLED"

    for _ in range(2):  # the second one finds the run finished, and doubles nothing
        code, said = in_process(capsys, monkeypatch, *COMMAND, "--mlflow", "mine", "--out", "run")
        assert code == 0, said
        assert json.loads((folder / "mlflow.json").read_text()) == known
        data = _check(server, folder, "mine", known["run"])
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert (tags["method"], tags["seed"], tags["status"]) == (
        "sam",
        "0",
        json.loads((folder / "result.json").read_text())["status"],
    )
    assert tags["recipe"] == digest(own) == json.loads((folder / "result.json").read_text())["recipe"]
    parameters = {each["key"]: each["value"] for each in data["params"]}
    assert parameters["train.lr"] == "0.1"
    assert parameters["data.train_size"] == "96"
    assert parameters["methods"] == '["sam"]'

    delete = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/delete",
        json.dumps({"run_id": known["run"]}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(delete, timeout=60).close()
    for gone in (known["run"], "0" * 32):
        (folder / "mlflow.json").write_text(json.dumps({**known, "run": gone}))
        code, said = in_process(capsys, monkeypatch, *COMMAND, "--mlflow", "mine", "--out", "run")
        assert code == 0, said
        fresh = json.loads((folder / "mlflow.json").read_text())["run"]
        assert fresh != gone
        _check(server, folder, "mine", fresh)


def test_a_server_that_is_down_is_told_once_and_gets_the_numbers_later(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    down = "http://me:secret@127.0.0.1:1"
    monkeypatch.setattr(sys, "argv", ["bisam", *COMMAND, "--mlflow", down, "--out", "run"])
    import bisam_lab

    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    said = " ".join("".join(capsys.readouterr()).split())
    assert left.value.code == 0, said
    assert len(re.findall("MLflow at http://127.0.0.1:1 does not answer", said)) == 1
    assert "MLflow lacks numbers of this run: repeat the command" in said
    assert "secret" not in said and "Traceback" not in said
    assert (tmp_path / "run" / "result.json").is_file()
    assert not (tmp_path / "run" / "mlflow.json").exists()
    code, said = in_process(capsys, monkeypatch, *COMMAND, "--mlflow", server, "--out", "run")
    assert code == 0, said
    _check(server, tmp_path / "run", "digits", json.loads((tmp_path / "run" / "mlflow.json").read_text())["run"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mine", "--mlflow mine names an experiment, and no server: set MLFLOW_TRACKING_URI=http://HOST:5000"),
        ("ftp://me:secret@host", "--mlflow ftp://host cannot be used"),
    ],
)
def test_a_place_that_is_none(given, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = in_process(capsys, monkeypatch, *COMMAND, "--mlflow", given, "--out", "run")
    assert (code, words in said, "secret" in said) == (2, True, False), said


def test_without_the_package(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    code, said = in_process(capsys, monkeypatch, *COMMAND, "--mlflow", "http://127.0.0.1:1", "--out", "run")
    assert code == 2
    assert said.endswith("error: --mlflow needs the package mlflow-skinny: pip install 'bisam[mlflow]'")


def test_numbers_that_are_none_are_left_out():
    """The client refuses no NaN, and the page of a run then shows none of its curve."""
    sent = []

    class Client:
        def log_batch(self, run, metrics):
            sent.extend((each.key, each.value) for each in metrics)

    tracked = object.__new__(Tracked)
    tracked._client, tracked._id = Client(), "x"
    tracked._log({"train_loss": math.nan, "validation_score": 0.5}, 1)
    assert sent == [("validation_score", 0.5)]
