"""Results, budgets, checkpoints and journals with values that cannot be: one sentence each, and nothing lost."""

import copy
import io
import json
import zipfile

import pytest
import torch

from bisam_lab.budget import Budget
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.checkpoint import CheckpointError, read, write
from bisam_lab.run.result import Epoch, Run, RunResult
from bisam_lab.run.resumable import Training
from bisam_lab.study.files import UnreadableError, read_result, read_results
from bisam_lab.study.folder import Study
from bisam_lab.tuning.claim import claim

from ..run.runs import TINY
from ..tuning.small import small

GOOD = RunResult(
    "sgd", 0, "ok", 0.5, 0.5, 2, 1.0, 1.0, history=[Epoch(k, 1.0, 0.5, loss_at="w", passes=1.0) for k in (1, 2)]
).to_dict()

#: What may be many things, or is told by the others.
FREE = ("environment", "history", "parameters", "seconds", "signatures", "steps_per_second")


def changed(path, value, of=GOOD):
    """A copy of plain values with one of them replaced."""
    fresh = copy.deepcopy(of)
    inner = fresh
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return fresh


@pytest.mark.parametrize("value", [None, True, "x", [], {}, -1, 10**30, 1e308, "\ud800"], ids=repr)
@pytest.mark.parametrize(
    "path",
    [(key,) for key in GOOD if key not in FREE] + [("history", 1, key) for key in ("epoch", "loss_at")],
    ids=str,
)
def test_a_value_of_another_kind(path, value, tmp_path):
    """It is refused, or it is one that the field may have."""
    (tmp_path / "result.json").write_text(json.dumps(changed(path, value)))
    fits = {"equal_cost": (True,), "recipe": ("x",), "variant": ("x",), "method": ("x",), "metric": ("x",)}
    fits |= {"loss_at": ("x",), "measures": ({},), "test_score": (-1,), "validation_score": (-1,)}
    if any(value is fit or value == fit == {} for fit in fits.get(path[-1], ())):
        RunResult.from_dict(changed(path, value))
    else:
        with pytest.raises(UnreadableError) as caught:
            read_result(tmp_path, Run("", 0, "sgd"))
        assert len(str(caught.value).replace(str(tmp_path), "")) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(changed(("history", 1, "epoch"), 1_000_000_000)), "epoch 1000000000 where epoch 2 should be"),
        (json.dumps(changed(("history",), [GOOD["history"][0]] * 100_001)), "100,001 epochs"),
        (json.dumps(changed(("history",), [7])), "an epoch is no mapping"),
        (json.dumps(changed(("selected_epoch",), 3)), "selected_epoch=3 is none of its 2 epochs"),
        (json.dumps(changed(("test_score",), 55.0)), "test_score=55.0 is no share"),
        (json.dumps(changed(("status",), "fine")), "status='fine' is none of ok, collapsed, diverged"),
        ('{"test_score": NaN, "history": []}', "missing"),
        ("[" * 100_000, "too deep"),
        ("1" * 5000, ""),
        ("[]", "no mapping with a history"),
        (b"\xff\xfe{}", "is not text in UTF-8"),
    ],
)
def test_a_result_that_cannot_be(text, words, tmp_path):
    (tmp_path / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnreadableError, match="cannot be read") as caught:
        read_result(tmp_path, Run("", 0, "sgd"))
    assert words in str(caught.value)
    assert str(tmp_path / "result.json") in str(caught.value)


def test_a_history_that_is_longer_than_the_training(tmp_path):
    study = Study(tmp_path / "s", load("digits", [*TINY, "methods=[sgd]", "seeds=1", "train.epochs=1"]))
    place = study.path(study.runs[0])
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(GOOD))
    assert read_results(study.folder) == ([], ["runs/sgd/seed-0/result.json"])
    assert study.results() == {}
    assert (
        "has a history of 2 epochs, and its recipe trains 1"
        in (tmp_path / "s/quarantine/sgd-seed-0.1/REASON.txt").read_text()
    )


@pytest.mark.parametrize("share", [
    {"epochs": 10**9, "total": 4, "costs": {"sgd": 1}},
    {"epochs": True, "total": 1, "costs": {"sgd": 1}},
    {"epochs": 2, "total": 1e300, "costs": {"sgd": 1}},
    {"epochs": 2, "total": "4", "costs": {"sgd": 1}},
    {"epochs": 2, "total": 2, "costs": {"sgd": "1"}},
    {"epochs": 100_000, "total": 1e8, "costs": {"sgd": 1e-5, "sam": 1e3}},
    {"epochs": 2, "total": 2, "costs": {}},
    {"epochs": 2, "total": 2, "costs": 7},
    [],
])  # fmt: skip
def test_a_budget_that_cannot_be(share):
    with pytest.raises(ValueError, match=r"epochs|spend|cost|budget"):
        Budget.from_dict({"unit": "passes", "shares": {"": share}})


@pytest.fixture(scope="module")
def begun():
    training = Training(load("digits", [*TINY, "train.epochs=1", "data.validation_size=20"]), "sam", 0)
    return training, training.state()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recipe",), 7),
        (("history",), [vars(Epoch(1, 1.0, 0.5)), vars(Epoch(2, 1.0, 0.5))]),
        (("history",), [{"epoch": "x", "train_loss": 1.0, "validation_score": 0.5}]),
        (("history",), 7),
        (("losses",), torch.zeros(10_000)),
        (("losses",), "x"),
        (("optimizer", "param_groups", 0, "lr"), "x"),
        (("optimizer", "param_groups"), 7),
        (("optimizer",), []),
        (("schedule", "last_epoch"), "x"),
        (("schedule",), None),
        (("model",), {}),
        (("chosen",), {"x": 1}),
        (("epoch_seconds",), "x"),
        (("seconds",), None),
        (("passes",), "x"),
        (("random",), 7),
    ],
    ids=str,
)
def test_a_checkpoint_that_cannot_be(path, value, begun):
    training, state = begun
    with pytest.raises(CheckpointError) as caught:
        training.restore(changed(path, value, state))
    assert len(str(caught.value)) <= 250


def test_a_checkpoint_that_grows_as_it_is_read(tmp_path):
    write(tmp_path / "last.pt", {"x": torch.zeros(1_000_000)})
    assert read(tmp_path / "last.pt")["x"].numel() == 1_000_000
    packed = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "last.pt") as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for member in whole.infolist():
            small.writestr(member.filename, whole.read(member))
    (tmp_path / "last.pt").write_bytes(packed.getvalue())
    with pytest.raises(CheckpointError, match="would unpack to 4,0"):
        read(tmp_path / "last.pt")


@pytest.mark.parametrize("line", [
    "{}", "7", "[]", "[" * 5000, '{"op_code": 99}',
    '{"op_code": 5, "worker_id": "x", "trial_id": 0, "param_name": "rho", "param_value_internal": "x"}',
])  # fmt: skip
def test_a_damaged_journal_is_one_sentence(line, tmp_path):
    tuning = small(tmp_path / "t")
    tuning.create()
    with (tmp_path / "t" / "optuna.log").open("a") as journal:
        journal.write(line + "\n" + line + "\n")
    with pytest.raises(RecipeError, match=r"optuna\.log is damaged"):
        tuning.create()


def test_a_trial_that_leads_out_of_its_folder(tmp_path):
    """Its checkpoints are deleted when it ends: a storage that others write to must not say where."""
    tuning = small(tmp_path / "t")
    study = tuning.create()
    claimed = claim(tuning, study)
    claimed.trial.set_user_attr("folder", "../../precious")
    assert claimed.folder == tmp_path / "t" / "trials" / "0000"
    claimed.trial.set_user_attr("folder", "0007")
    assert claimed.folder == tmp_path / "t" / "trials" / "0007"
