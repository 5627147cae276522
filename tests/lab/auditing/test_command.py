"""``bisam audit`` as a user types it, on checkpoints of real runs and of other programs."""

import json
import os
import signal
import sys
import warnings

import pytest
import torch

import bisam_lab
from bisam_lab.auditing import measure as measuring
from bisam_lab.auditing.checkpoint import _nothing_untrained
from bisam_lab.auditing.folder import Audits
from bisam_lab.parallel.local import LocalPool
from bisam_lab.recipe import load
from bisam_lab.run.checkpoint import write
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell
from tests.browser import resize, started
from tests.lab.test_cli import in_process

SMALL = ["--batches", "2", "--batch-size", "24"]
NET = """
import torch
from torch import nn

def flat(num_classes, width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


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
    assert one["environment"]["packages"]["torch"] == torch.__version__
    page = (out / "audit.html").read_text()
    assert all(text in page for text in ("Batch statistics", "Running statistics", one["verdict"][0].split(":")[0]))


def test_checkpoints_of_a_training_make_one_page_and_are_not_measured_twice(run, tmp_path, monkeypatch, capsys):
    files = sorted(str(path) for path in (run / "checkpoints").glob("epoch-*.pt"))
    assert [path[-7:] for path in files] == ["0000.pt", "0001.pt", "0002.pt"]
    words = ["--adversaries", "sam,bisam-tanh@mu=5.0", "--rhos", "0.1", *SMALL, "--out", str(tmp_path / "all")]
    first = audited(monkeypatch, capsys, *files[:2], *words)
    assert [one["epoch"] for one in first["audits"]] == [0, 1]
    assert first["audits"][0]["rows"][1]["adversary"] == "bisam-tanh@mu=5"
    submitted = []
    submit = LocalPool.submit

    def spy(pool, job, task, *rest, names):
        submitted.append(task.place.epoch)
        submit(pool, job, task, *rest, names=names)

    monkeypatch.setattr(LocalPool, "submit", spy)
    second = audited(monkeypatch, capsys, *files, *words)
    assert submitted == [2]
    assert second["audits"][:2] == first["audits"]
    assert "The course of training" in (tmp_path / "all" / "audit.html").read_text()


def test_neither_what_was_there_nor_what_has_just_ended_is_lost_by_ctrl_c(run, tmp_path, monkeypatch, capsys):
    start, middle, end = sorted(str(path) for path in (run / "checkpoints").glob("epoch-*.pt"))
    words = ["--adversaries", "sam", "--rhos", "0.1", *SMALL, "--out", str(tmp_path / "k")]
    first = audited(monkeypatch, capsys, middle, *words)
    add = Audits.add

    def killed(audits, mark, found):
        if found["epoch"] == 2:
            raise KeyboardInterrupt
        return add(audits, mark, found)

    monkeypatch.setattr(Audits, "add", killed)
    code, _ = in_process(capsys, monkeypatch, "audit", start, end, middle, *words, "--jobs", "1")
    kept = json.loads((tmp_path / "k" / "audit.json").read_text())["audits"]
    assert (code, [one["epoch"] for one in kept]) == (130, [0, 2, 1])
    assert kept[2] == first["audits"][0]


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
        (["RUN", "--adversaries", "sam,vasso"], "vasso climbs along what an optimizer remembers"),
        (["RUN", "--adversaries", "bisam-lgo"], "did you mean bisam-log?"),
        (["RUN", "--adversaries", "sam,sam"], "must name one adversary or more, each once"),
        (["nothing.pt", "--adversaries", "sma"], "adversaries: 'sma' is none of"),
        (["RUN", "RUN"], "is there twice: leave it out once"),
        (["RUN", "RUN/checkpoints/best.pt"], "is there twice: leave it out once"),
        (["old.pt"], "old.pt holds a recipe that is damaged or of another version of bisam: name one by --recipe"),
        (["RUN", "--rhos", "a,b"], "--rhos 'a,b' must be numbers"),
        (["RUN", "--rhos", "nan"], "--rhos=nan must be a finite number greater than 0"),
        (["RUN", "--rhos", "0"], "--rhos=0.0 must be a finite number greater than 0"),
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
    write(tmp_path / "old.pt", {"recipe": {"model": {"name": 3}}, "model": {}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    code, told = in_process(
        capsys, monkeypatch, "audit", *(w.replace("RUN", str(run)) for w in words), "--batches", "2"
    )
    assert (code, said in told) == (2, True), told
    assert "Traceback" not in told


def test_published_weights_with_a_head_for_other_classes_are_refused(tmp_path, monkeypatch, capsys):
    import timm

    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: make(name, **{**options, "pretrained": False}))
    words = ["timm:test_resnet", "--recipe", "digits", "data.image_size=32", "--out", str(tmp_path / "t"), *SMALL]
    code, told = in_process(capsys, monkeypatch, "audit", *words)
    assert (code, "has learnt 1000 classes and the data have 10" in told) == (2, True), told


def test_published_weights_without_a_head_are_refused_and_a_run_from_them_is_audited(tmp_path, monkeypatch, capsys):
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    monkeypatch.chdir(tmp_path)
    words = [f"w{i}" for i in range(8)]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=13, num_labels=2, **sizes)
    for name, kind in (("body", BertModel), ("whole", BertForSequenceClassification)):
        kind(config).save_pretrained(name)
        BertTokenizerFast(vocab_file="vocab.txt").save_pretrained(name)
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"w{i % 8} w{i % 3},{'ny'[i % 2]}\n" for i in range(120)))
    data = ["--recipe", "own-texts", "data.name=text:t.csv"]
    small = ["--adversaries", "sam", "--rhos", "0.1", "--batches", "2", "--batch-size", "8"]
    code, told = in_process(capsys, monkeypatch, "audit", "hf:body", *data, *small)
    assert (code, "not pretrained are classifier.bias, classifier.weight: an audit of what has learnt" in told) == (
        2, True), told  # fmt: skip
    assert audited(monkeypatch, capsys, "hf:whole", *data, *small)["audits"][0]["batches"] == 2
    recipe = load("own-texts", ["data.name=text:t.csv", "model.name=hf:whole", "model.pretrained=true",
                                "model.options={}", "model.lora.r=2", "train.epochs=1", "methods=[sam]"])  # fmt: skip
    run_cell(recipe, Run("", 0, "sam"), tmp_path / "adapted", keep=True)
    (tmp_path / "adapted" / "run.yaml").write_text(recipe.to_yaml())
    (one,) = audited(monkeypatch, capsys, "adapted", *small)["audits"]
    assert one["rows"][0]["eps_norm"] == pytest.approx(0.1), "the adapters alone are perturbed"


def test_warnings_of_other_things_than_weights_come_through():
    with pytest.warns(UserWarning, match="something else"), _nothing_untrained():
        warnings.warn("something else", stacklevel=1)


def test_audits_that_would_be_lost_are_refused_and_restart_keeps_them(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a"
    words = [str(run), *SMALL, "--adversaries", "sam", "--out", str(out)]
    first = audited(monkeypatch, capsys, *words, "--rhos", "0.1")
    kept = (out / "audit.json").read_bytes()
    code, told = in_process(capsys, monkeypatch, "audit", *words, "--rhos", "0.2")
    assert (code, "holds an audit with other checkpoints" in told) == (2, True), told
    assert (out / "audit.json").read_bytes() == kept
    assert audited(monkeypatch, capsys, *words, "--rhos", "0.1") == first
    second = audited(monkeypatch, capsys, *words, "--rhos", "0.2", "--restart")
    assert second["audits"][0]["rows"][0]["rho"] == 0.2
    assert (tmp_path / "a.1" / "audit.json").read_bytes() == kept


def test_checkpoints_of_one_name_are_told_apart(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        torch.save(torch.load(run / "checkpoints" / "best.pt", weights_only=True)["model"], f"{name}/weights.pt")
    words = ["--recipe", str(run / "run.yaml"), "--adversaries", "sam", "--rhos", "0.1", *SMALL, "--out", "out"]
    alone = audited(monkeypatch, capsys, "a/weights.pt", *words)
    both = audited(monkeypatch, capsys, "a/weights.pt", "b/weights.pt", *words)
    assert [one["name"] for one in both["audits"]] == ["weights (a/weights.pt)", "weights (b/weights.pt)"]
    assert both["audits"][0]["rows"] == alone["audits"][0]["rows"]
    assert "weights (b/weights.pt)" in (tmp_path / "out" / "audit.html").read_text()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_shows_what_is_measured_and_the_same_command_goes_on(stop, code, run, tmp_path, monkeypatch, capsys):
    words = [str(run), "--batch-size", "12", "--batches", "4", "--adversaries", "sam,random", "--rhos", "0.1"]
    words += ["--out", str(tmp_path / "s")]
    looked, calls = measuring._Look.all, []

    def stopping(*given):
        calls.append(1)
        if len(calls) == 6:  # two modes: the fourth batch begins with the seventh
            os.kill(os.getpid(), stop)
        return looked(*given)

    monkeypatch.setattr(measuring._Look, "all", stopping)
    monkeypatch.setattr(sys, "argv", ["bisam", "audit", *words])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    told = capsys.readouterr()
    assert left.value.code == code
    assert "random: cosine" in told.out
    assert "It was stopped after 2 of 4 batches." in told.out
    assert "What is done is kept; the same command goes on." in told.err
    calls[:] = range(100)
    (found,) = audited(monkeypatch, capsys, *words)["audits"]
    assert (len(calls), found["batches"], found["stopped"]) == (104, 4, False)
    assert not list((tmp_path / "s").glob(".measured*"))


def test_a_network_that_fails_and_a_folder_that_cannot_be_written_are_one_sentence(run, tmp_path, monkeypatch, capsys):
    words = ["audit", str(run), *SMALL, "--out", str(tmp_path / "f")]

    def fail(*given):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    with monkeypatch.context() as patched:
        patched.setattr(measuring._Look, "all", fail)
        code, told = in_process(capsys, patched, *words)
    assert (code, "memory ran out: write a smaller --batch-size" in told, "Traceback" in told) == (2, True, False), told
    monkeypatch.setattr(os, "access", lambda path, mode, **options: mode != os.W_OK)
    code, told = in_process(capsys, monkeypatch, *words)
    assert (code, "f cannot be written: name another folder" in told) == (2, True), told


def test_the_report_of_an_audit_is_its_page(tmp_path, monkeypatch, capsys):
    (tmp_path / "audit.json").write_text("{}")
    code, told = in_process(capsys, monkeypatch, "report", str(tmp_path))
    assert (code, "is the folder of an audit, whose page is there" in told) == (2, True), told


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
