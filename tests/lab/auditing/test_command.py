"""``bisam audit`` as a user types it, on checkpoints of real runs and of other programs."""

import json
import sys

import pytest
import torch

import bisam_lab
from bisam_lab.cli import audit as command
from bisam_lab.recipe import load
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell
from tests.browser import resize, started
from tests.lab.test_cli import TINY, in_process

SMALL = ["--batches", "2", "--batch-size", "24"]
NET = """
import torch
from torch import nn

def flat(num_classes, width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two epochs that has kept its weights before the first and after each."""
    folder = tmp_path_factory.mktemp("run") / "seed-3"
    recipe = load("digits", [*TINY, "methods=[bisam-log]", "seeds=1", "first_seed=3"])
    run_cell(recipe, Run("", 3, "bisam-log"), folder, keep=True, keep_every=1)
    (folder / "run.yaml").write_text(recipe.to_yaml())
    return folder


def audited(monkeypatch, capsys, *args):
    """Run the command; return what it prints and what its folder says."""
    monkeypatch.setattr(sys, "argv", ["bisam", "audit", *args, "--json"])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    told = capsys.readouterr()
    assert left.value.code in (0, None), told.err
    return json.loads(told.out)


def test_a_run_is_audited_with_its_own_data_and_its_page_is_written(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "one"
    found = audited(monkeypatch, capsys, str(run), *SMALL, "--rhos", "0.1,0.2", "--out", str(out))
    (one,) = found["audits"]
    assert one["name"].startswith("digits bisam-log seed 3, epoch ")
    assert {row["adversary"] for row in one["rows"]} == {"sam", "smoothed", "bisam-tanh", "bisam-log", "random"}
    assert {(row["rho"], row["statistics"]) for row in one["rows"]} == {
        (rho, kind) for rho in (0.1, 0.2) for kind in ("batch", "running")
    }
    assert all(isinstance(row["rise_error_held_out"], float) for row in one["rows"])
    assert json.loads((out / "audit.json").read_text())["audits"] == found["audits"]
    page = (out / "audit.html").read_text()
    assert all(text in page for text in ("Batch statistics", "Running statistics", one["verdict"][0].split(":")[0]))


def test_checkpoints_of_a_training_make_one_page_and_are_not_measured_twice(run, tmp_path, monkeypatch, capsys):
    files = sorted(str(path) for path in (run / "checkpoints").glob("epoch-*.pt"))
    assert [path[-7:] for path in files] == ["0000.pt", "0001.pt", "0002.pt"]
    words = ["--adversaries", "sam,bisam-tanh@mu=5.0", "--rhos", "0.1", *SMALL, "--out", str(tmp_path / "all")]
    first = audited(monkeypatch, capsys, *files[:2], *words)
    assert [one["epoch"] for one in first["audits"]] == [0, 1]
    assert first["audits"][0]["rows"][1]["adversary"] == "bisam-tanh@mu=5"
    measured = []
    whole = command._audited
    monkeypatch.setattr(command, "_audited", lambda place, *rest: measured.append(place.epoch) or whole(place, *rest))
    second = audited(monkeypatch, capsys, *files, *words)
    assert measured == [2]
    assert second["audits"][:2] == first["audits"]
    assert "The course of training" in (tmp_path / "all" / "audit.html").read_text()


def test_weights_of_another_program_and_a_network_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(NET)
    sys.path.insert(0, str(tmp_path))
    try:
        import my_net

        torch.save({f"module.{k}": 2 * v for k, v in my_net.flat(10, 6).state_dict().items()}, "weights.pt")
    finally:
        sys.path.remove(str(tmp_path))
    words = ["--recipe", "digits", "model.options={width: 6}", "--rhos", "0.1", "--adversaries", "sam", *SMALL]
    file = audited(monkeypatch, capsys, "weights.pt", "model.name=my_net.py:flat", *words, "--out", "a")["audits"][0]
    name = audited(monkeypatch, capsys, "my_net.py:flat", *words, "--out", "b")["audits"][0]
    assert file["name"] == "weights"
    assert any("both modes are one" in note for note in file["notes"])
    assert file["headers"][0]["loss_batch"] != name["headers"][0]["loss_batch"], (
        "the file's weights are twice the others"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.pt"], "CHECKPOINT 'nothing.pt': there is no such file or folder"),
        (
            ["weights.pt"],
            "CHECKPOINT 'weights.pt' does not say what it was trained on: name data and network by --recipe",
        ),
        (["empty"], "CHECKPOINT empty holds no checkpoints/best.pt"),
        (["train.lr=1"], "CHECKPOINT is missing before train.lr=1"),
        (["weights.pt", "--recipe", "digits"], "is of another network than model.name and model.options"),
        (["weights.pt", "--recipe", "digit"], "did you mean digits?"),
        (["RUN", "--adversaries", "sma"], "adversaries: 'sma' is none of smoothed, random, projected"),
        (["RUN", "--rhos", "a,b"], "--rhos 'a,b' must be numbers"),
        (["RUN", "--rhos", "0.2,0.1"], "must be increasing"),
        (["RUN", "--batch-size", "97"], "the training split has 96 examples, fewer than a batch of 97"),
        (["RUN", "--batch-size", "60"], "the validation split has 50 examples, fewer than a batch of 60"),
        (["RUN", "--out", "full"], "--out full holds files of another kind"),
        (["RUN", "--rho", "0.1"], "bisam audit has no --rho: write --rhos"),
        (["RUN", "--method", "sam"], "bisam audit has no --method: write --adversaries"),
        (["weights.pt", "--recipe", "digits", "--lr", "0.1"], "train.lr=0.1 changes nothing in an audit"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(2)}, "weights.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    code, told = in_process(
        capsys, monkeypatch, "audit", *(str(run) if w == "RUN" else w for w in words), "--batches", "2"
    )
    assert (code, said in told) == (2, True), told
    assert "Traceback" not in told


def test_the_page_works_in_a_browser_and_on_a_phone(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "page"
    names = ["--adversaries", "sam,bisam-log,random", "--rhos", "0.1,0.2"]
    audited(monkeypatch, capsys, str(run), *names, *SMALL, "--out", str(out), "--sharpness")
    with started() as browser:
        browser.get((out / "audit.html").as_uri())
        shown = (
            "return [...document.querySelectorAll('[data-method=\"random\"]')]"
            ".some(e => e.getBoundingClientRect().width)"
        )
        assert browser.execute_script(shown)
        browser.execute_script("document.querySelector('.chip[data-name=\"random\"]').click()")
        assert not browser.execute_script(shown)
        for width in (1280, 390):
            resize(browser, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
