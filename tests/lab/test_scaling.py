"""``benchmarks/scaling.py``: its arithmetic, on what is small enough to be counted here."""

import io
import sys
from pathlib import Path

import pytest
import torch

from bisam import METHODS
from tests.makers import MAKERS
from tests.steps import turn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import scaling
from scaling import Layout


@pytest.mark.parametrize("name", METHODS)
def test_a_step_keeps_the_vectors_that_the_arithmetic_multiplies(name):
    """Within 5 % of a vector: the batch, its outputs and the norm layer's weights are counted too."""
    assert scaling.kept_vectors(name) == pytest.approx(scaling.VECTORS[name], abs=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_holds_what_the_arithmetic_says(name):
    model = scaling.network()
    opt = MAKERS[name](torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), model=model)
    x, y = torch.randn(4, 300), torch.randint(0, 300, (4,))
    for _ in range(2):
        turn(opt, model, x, y)
        opt.step()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    weights = sum(p.numel() for p in model.parameters())
    expected = scaling.checkpoint(weights, scaling.REMEMBERED[name], state=1)
    assert file.tell() == pytest.approx(expected, rel=0.02)  # and its headers


def test_a_device_holds_a_share_of_what_is_sharded():
    whole = 4 * 1000 * (1 + 1 + 2 + 1)  # weights, gradient, AdamW's two states and w
    assert scaling.memory(1000, 1, Layout("replicas", 4)) == whole
    assert scaling.memory(1000, 1, Layout("zero", 4)) == whole - 4 * 2000 * 3 / 4
    assert scaling.memory(1000, 1, Layout("fsdp", 4, units=10, gathered=2)) == whole / 4 + 2 * 100 * 2


def test_a_time_is_extrapolated_by_its_power_and_never_below_proportion():
    sizes = [100, 300, 1000]
    assert scaling.exponent(sizes, [n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert scaling.extrapolated(sizes, [n**1.5 for n in sizes], 10_000) == pytest.approx(10_000**1.5)
    assert scaling.extrapolated(sizes, [1.0, 1.1, 1.2], 10_000) == pytest.approx(12)  # a start that all share


def test_a_training_costs_six_operations_a_weight_and_token():
    assert scaling.gpu_hours(1e9, 2e10, 2, peak=1e15, used=0.5) == pytest.approx(6 * 1e9 * 2e10 * 2 / 5e14 / 3600)
