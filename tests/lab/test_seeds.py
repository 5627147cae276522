"""``bisam train`` of several seeds."""

import json

import pytest

from .run.runs import same, weights
from .test_cli import TINY, bisam, in_process


@pytest.mark.slow
def test_seeds_are_the_runs_of_single_calls_and_are_trained_once(tmp_path):
    words = ["train", "digits", *TINY, "--method", "sam"]
    done = bisam(*words, "--seeds", "2", "--seed", "3", "--jobs", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    folder = tmp_path / "runs" / "digits" / "sam"
    assert told["folder"] == "runs/digits/sam"
    assert [run["seed"] for run in told["runs"]] == [3, 4]
    single = bisam(*words, "--seed", "4", "--out", "single", cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    one, other = (json.loads((tmp_path / "single" / "result.json").read_text()), told["runs"][1])
    assert (one["test_score"], one["recipe"]) == (other["test_score"], other["recipe"])
    assert [e["train_loss"] for e in one["history"]] == [e["train_loss"] for e in other["history"]]
    assert all(same(weights(folder / "seed-4")[k], weights(tmp_path / "single")[k]) for k in ("last", "best"))
    assert (folder / "seed-3" / "run.yaml").read_text() != (folder / "seed-4" / "run.yaml").read_text()
    assert (tmp_path / "single" / "run.yaml").read_text() == (folder / "seed-4" / "run.yaml").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    again = bisam(*words, "--seeds", "2", "--seed", "3", cwd=tmp_path)
    assert "sam seed 4: test" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}


def test_a_seed_that_fails_is_a_line_and_code_1(tmp_path):
    (tmp_path / "net.py").write_text("def Net(num_classes):\n    raise SystemError('no such layer')\n")
    done = bisam(
        "train", "digits", *TINY[:2], "model.name=net.py:Net", "model.options={}", "--seeds", "2", cwd=tmp_path
    )
    assert done.returncode != 0
    assert "no such layer" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "2", "--wandb", "p"], "--wandb follows one run of this process: leave it out, or --seeds"),
        (["--engine", "ray", "--mlflow", "e"], "--mlflow follows one run of this process: leave it out, or --engine"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_what_does_not_go_with_seeds(capsys, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    code, said = in_process(capsys, monkeypatch, "train", "digits", *words)
    assert code != 0
    assert told in said
    assert not list(tmp_path.iterdir())
