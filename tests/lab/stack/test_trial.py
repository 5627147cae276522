"""What a trial says of a network: whether a stack of it computes the same. How fast it is, is not tested."""

import math

import pytest
import torch

from bisam_lab.recipe import load
from bisam_lab.stack.network import StackedNetwork
from bisam_lab.stack.plan import LARGEST_PASS
from bisam_lab.stack.trial import Trial, try_stack

SMALL = ("data.train_size=40", "data.validation_size=20", "train.batch_size=8")


def _network(name):
    return f"model.name=tests.lab.stack.networks:{name}", "model.options={}"


@pytest.mark.parametrize("name", ["Perceptron", "Transformer", "unlearnt"])
def test_networks_that_can_be_stacked(name):
    trial = try_stack(load("digits", [*SMALL, *_network(name)]), None, 3, slowest=math.inf)
    assert trial.refused is None
    assert trial.alone > 0
    assert trial.ratio == trial.stacked / trial.alone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (_network("dropping"), "draws random numbers"),
        (_network("Shy"), "computes something else"),
        (_network("Branching"), "vmap cannot compute"),
        (_network("cumulative"), "running statistics of a kind"),
        (_network("slow"), "large enough alone"),
        (("engine.precision=bf16-mixed",), "autocast"),
        (("engine.precision=16-mixed",), "autocast"),
        (("engine.devices=2",), "engine.devices=2 x engine.nodes=1 is not one process"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].rpartition(":")[2],
)
def test_what_cannot_be_stacked_is_refused_with_the_reason(changes, said):
    slowest = LARGEST_PASS if "large enough" in said else math.inf
    assert said in try_stack(load("digits", [*SMALL, *changes]), None, 3, slowest).refused


def test_streamed_pictures_are_refused(painted):
    recipe = load(
        "own", [f"data.name=folder:{painted}", "data.loading=stream", "data.workers=0", "model.name=resnet-8"]
    )
    assert "decoded from files" in try_stack(recipe, None, 3).refused


def test_a_stack_that_needs_too_much_memory_may_be_smaller(monkeypatch):
    def full(self, requests):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(StackedNetwork, "__call__", full)
    trial = try_stack(load("digits", [*SMALL, *_network("Perceptron")]), None, 3, slowest=math.inf)
    assert trial.memory
    assert "memory" in trial.refused


def test_a_trial_leaves_the_random_numbers_of_a_run_alone():
    """A run seeds itself, so nothing of the trial can be in it."""
    from bisam_lab.run.train import train

    recipe = load("digits", [*SMALL, *_network("Perceptron"), "train.epochs=1"])
    before = train(recipe, "sam", 0)
    try_stack(recipe, None, 2)
    after = train(recipe, "sam", 0)
    assert before.history[0].train_loss == after.history[0].train_loss


def test_the_ratio_is_the_stacked_passs_share():
    assert Trial(None, alone=2.0, stacked=0.5).ratio == 0.25
