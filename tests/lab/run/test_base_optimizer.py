"""A base optimizer by its import path: trained, stopped and gone on with, switched between its modes, or refused."""

import textwrap

import pytest
import torch
from torch import nn

from bisam_lab.bench import bench, every_method
from bisam_lab.data import load_splits
from bisam_lab.models import ResNet, build_model
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.base_optimizer import build_base
from bisam_lab.run.checkpoint import read
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.setup import check
from bisam_lab.run.train import train
from bisam_lab.tuning.rho_range import advise
from tests.lab.run.runs import TINY, StopAfter, same, weights

SCHEDULE_FREE = ("train.optimizer=schedulefree:SGDScheduleFree", "train.schedule=constant", "train.lr=1")
BASES = [
    SCHEDULE_FREE,
    ("train.optimizer=schedulefree:AdamWScheduleFree", "train.optimizer_options={warmup_steps: 3}", "train.lr=0.01"),
    ("train.optimizer=pytorch_optimizer:Lion", "train.lr=0.001"),
    ("train.optimizer=timm.optim:Muon", "train.optimizer_options={ns_steps: 3}", "train.lr=0.02"),
    ("train.optimizer=torch.optim:NAdam", "train.lr=0.01"),
    ("train.optimizer=sgd", "train.optimizer_options={nesterov: true}"),
]


def recipe_of(*given, methods="plain,bisam-log", epochs=2):
    return load("digits", [*TINY, f"train.epochs={epochs}", f"methods=[{methods}]", *given])


@pytest.mark.parametrize("method", ["plain", "bisam-log"])
@pytest.mark.parametrize("given", BASES, ids=lambda given: given[0].rpartition("=")[2])
def test_any_base_goes_on_exactly(given, method, tmp_path):
    pytest.importorskip(given[0].partition("=")[2].partition(":")[0].partition(".")[0].replace("sgd", "torch"))
    recipe = recipe_of(*given)
    whole = train(recipe, method, 2, folder=tmp_path / "a")
    for steps in (1, 3, 1):  # in mid-epoch, in the next one, and at once
        with pytest.raises(Stopped):
            train(recipe, method, 2, folder=tmp_path / "b", observer=StopAfter(steps))
    resumed = train(recipe, method, 2, folder=tmp_path / "b")
    for name in ("last", "best"):
        assert same(weights(tmp_path / "a")[name], weights(tmp_path / "b")[name])
    assert [e.train_loss for e in whole.history] == [e.train_loss for e in resumed.history]
    assert whole.test_score == resumed.test_score


class StopInValidation(Observer):
    """Stops before the first batch of the first validation."""

    asked = 0

    def stopping(self):
        self.asked += 1
        return self.asked == 4  # after each of the epoch's three steps, and then before a batch


def test_a_base_with_modes_stopped_in_validation_is_not_switched_twice(tmp_path):
    """Each switch rounds the weights, so one more would end the run with other bits."""
    pytest.importorskip("schedulefree")
    recipe = recipe_of(*SCHEDULE_FREE)
    train(recipe, "plain", 0, folder=tmp_path / "a")
    with pytest.raises(Stopped):
        train(recipe, "plain", 0, folder=tmp_path / "b", observer=StopInValidation())
    assert not read(tmp_path / "b" / "checkpoints" / "last.pt")["optimizer"]["param_groups"][0]["train_mode"]
    train(recipe, "plain", 0, folder=tmp_path / "b")
    assert same(weights(tmp_path / "a")["last"], weights(tmp_path / "b")["last"])


def test_a_base_with_modes_is_scored_saved_and_tested_in_that_for_evaluation(tmp_path):
    schedulefree = pytest.importorskip("schedulefree")
    recipe = recipe_of(*SCHEDULE_FREE, "train.optimizer_options={momentum: 0.95}", "train.select=last")
    result = train(recipe, "plain", 3, folder=tmp_path)
    splits = load_splits(recipe.data, None, 3)
    torch.manual_seed(3)
    model = build_model(recipe.model, (1, 8, 8), 10)
    base = schedulefree.SGDScheduleFree(model.parameters(), lr=1.0, momentum=0.95, weight_decay=5e-4)
    for epoch in (1, 2):
        model.train()
        base.train()
        for batch in splits.train.shuffled(32, seed=3, epoch=epoch):
            nn.functional.cross_entropy(model(batch.x), batch.y).backward()
            base.step()
            base.zero_grad()
        trained = {key: value.clone() for key, value in model.state_dict().items()}
        base.eval()
        model.eval()
        right = [(model(batch.x).argmax(1) == batch.y).float() for batch in splits.validation.in_order()]
        assert float(torch.cat(right).mean()) == pytest.approx(result.history[epoch - 1].validation_score)
    for name in ("last", "best"):
        assert same(weights(tmp_path)[name], model.state_dict())
    assert not same(trained, model.state_dict())
    right = [(model(batch.x).argmax(1) == batch.y).float() for batch in splits.test.in_order()]
    assert float(torch.cat(right).mean()) == pytest.approx(result.test_score)


def test_running_statistics_of_other_weights_are_told():
    pytest.importorskip("schedulefree")
    for given, told in ((SCHEDULE_FREE, 1), ((), 0)):
        train(recipe_of(*given, epochs=1), "plain", 0, observer=(watcher := StopAfter(-1)))
        assert sum("BatchNorm" in note for note in watcher.notes) == told


OWN = """
    import torch

    def matrices_and_the_rest(params, lr, weight_decay, beta=0.9):
        groups = [[p for p in params if p.ndim > 1], [p for p in params if p.ndim < 2]]
        return torch.optim.AdamW(
            [{"params": groups[0], "betas": (beta, 0.99)}, {"params": groups[1], "weight_decay": 0}],
            lr=lr, weight_decay=weight_decay,
        )

    def nothing(params, lr):
        return params

    def fixed(params):
        return torch.optim.SGD(params, lr=0.1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))


@pytest.mark.usefixtures("own")
def test_a_function_of_ones_own_makes_the_base():
    recipe = recipe_of(
        "train.optimizer=own.py:matrices_and_the_rest", "train.optimizer_options={beta: 0.8}", "train.lr=0.3"
    )
    matrices, rest = build_base(recipe.train, ResNet(8, 1, 10, width=2)).param_groups
    assert matrices["betas"] == (0.8, 0.99)
    assert (matrices["lr"], matrices["weight_decay"], rest["weight_decay"]) == (0.3, 5e-4, 0)
    assert train(recipe, "bisam-log", 0).steps_per_second > 0


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("torch.optim:NAdm", "torch.optim has no NAdm: did you mean NAdam"),
        ("nowhere:Lion", "no module nowhere; install it"),
        ("torch.optim:Muon", r"only supports 2D parameters.*a function of your own, file\.py:NAME"),
        ("torch.optim:SparseAdam", r"does not support dense gradients.*a function of your own"),
        ("torch.optim:LBFGS", "missing 1 required positional argument: 'closure'"),
        ("torch.optim:Adadelta", r"plain around train\.optimizer=torch\.optim:Adadelta.*rho of its own"),
        ("own.py:nothing", r"returned a list; it must return a torch\.optim\.Optimizer"),
        ("own.py:fixed", r"fixed takes no lr, which train\.lr and train\.schedule set"),
        ("torch:tensor", "tensor takes no lr"),
        (
            "torch.optim:NAdam train.optimizer_options={betta: 1}",
            "unexpected keyword argument 'betta': did you mean betas.*optimizer_options",
        ),
        ("torch.optim:NAdam train.optimizer_options={lr: 1}", r"leave it out, and set train\.lr"),
        ("sgd train.optimizer_options={momentum: 0.5}", r"leave it out, and set train\.momentum"),
        ("torch.optim:Adam train.optimizer_options={betas: [2,2]}", "raised ValueError: Invalid beta"),
        (
            "torch.optim:Rprop train.weight_decay=0.01",
            r"no weight_decay: leave train\.weight_decay=0\.01 out",
        ),
        ("adamw train.momentum=0.95", r"momentum=0\.95 has no effect on optimizer=adamw.*optimizer_options"),
        ("sdg", "'sdg' is none of sgd, adam, adamw.*did you mean sgd"),
    ],
)
def test_what_cannot_be_a_base_is_one_sentence_with_the_way_out(given, words):
    with pytest.raises(RecipeError, match=words) as refused:
        train(recipe_of(*f"train.optimizer={given}".split(" ", 1)), "plain", 0)
    assert "\n" not in str(refused.value)


def test_a_base_that_cannot_be_built_is_told_before_any_process_starts():
    with pytest.raises(RecipeError, match="2D parameters"):
        check(recipe_of("train.optimizer=torch.optim:Muon"), None)


def test_plain_is_the_base_alone_whatever_its_name():
    a, b = (train(recipe_of(methods=name), name, 0) for name in ("plain", "sgd"))
    assert [e.train_loss for e in a.history] == [e.train_loss for e in b.history]
    with pytest.raises(RecipeError, match="plain and sgd are the same"):
        recipe_of(methods="plain,sgd")
    with pytest.raises(RecipeError, match=r"sgd is not the optimizer.*name plain instead"):
        recipe_of("train.optimizer=torch.optim:NAdam", methods="sgd,sam")


def test_the_other_commands_take_any_base():
    pytest.importorskip("schedulefree")
    recipe = recipe_of(*SCHEDULE_FREE, "train.batch_size=6", methods="plain,sam")
    report = bench(recipe, rounds=1, minimum=0, peers=False)
    assert [row.error for row in report.rows] == [None, None]
    assert advise(recipe, "sam").range.batches >= 2
    assert "plain" in every_method(recipe.train.plain_method)
    assert "sgd" not in every_method(recipe.train.plain_method)
