"""The modes of a network: which of its layers have two, what is put back, and what random numbers are left."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import bisam_lab
from tests.lab.auditing.test_audit import by, linear, pairs, with_norm


class OwnNorm(nn.Module):
    """A normalisation of one's own: it rebinds its running mean, and keeps a count in a plain attribute."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((5,), 0.5).double())
        self.seen = torch.zeros(())
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        if not self.training:
            return self.drop(x - self.mean)
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        self.seen = self.seen + 1
        return self.drop(x - x.mean(0))


class OneChannel(nn.Module):
    """InstanceNorm that tracks its statistics: normalised by the sample in training, by running ones afterwards."""

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(1, track_running_stats=True).double()

    def forward(self, x):
        return self.norm(x[:, None])[:, 0]


@pytest.mark.parametrize("layer", [OwnNorm, OneChannel])
def test_any_layer_with_running_statistics_has_two_modes(layer):
    net = nn.Sequential(layer(), linear())
    found = bisam_lab.audit(net, pairs(2), adversaries=["sam"], rhos=[0.5])
    loss = {header.statistics: header.loss_batch for header in found.headers}
    assert loss["batch"] != pytest.approx(loss["running"])
    x, y = (torch.cat(part) for part in zip(*pairs(2), strict=True))
    assert loss["running"] == pytest.approx(float(nn.functional.cross_entropy(net.eval()(x), y).detach()))
    assert not any("both modes are one" in note for note in found.notes)


def test_what_a_layer_rebinds_is_put_back_as_the_same_tensor():
    net = nn.Sequential(OwnNorm(), linear())
    mean, seen = net[0].mean, net[0].seen
    bisam_lab.audit(net, pairs(2), adversaries=["sam", "random"], rhos=[0.5], held_out=pairs(2))
    assert net[0].mean is mean
    assert net[0].seen is seen
    assert torch.equal(mean, torch.full((5,), 0.5).double())
    assert seen == 0


def test_frozen_statistics_and_buffers_that_stay_make_one_mode():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.ones(5).double())

        def forward(self, x):
            return x + self.shift

    found = bisam_lab.audit(nn.Sequential(Positions(), linear()), pairs(2), adversaries=["sam"], rhos=[0.5])
    assert any("both modes are one" in note for note in found.notes)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_computes_no_gradients(off):
    kept, net = bisam_lab.audit(linear(), pairs(2), adversaries=["sam"], rhos=[0.5]), linear()
    with off():
        found = bisam_lab.audit(net, pairs(2), adversaries=["sam"], rhos=[0.5])
        assert not torch.is_grad_enabled()
    assert by(found, statistics="batch")["rise_loss_batch"] == by(kept, statistics="batch")["rise_loss_batch"]


def test_random_states_of_numpy_and_python_stay_too():
    def noisy(logits, y):
        return nn.functional.cross_entropy(logits, y) * (1 + np.random.rand() + random.random())

    before = np.random.get_state()[1].copy(), random.getstate()
    bisam_lab.audit(linear(), pairs(2), adversaries={"own": noisy}, rhos=[0.1])
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_a_random_forward_pass_is_told():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner(nn.functional.dropout(x))

    said = "two passes over one batch give different logits"
    assert any(said in note for note in bisam_lab.audit(Careless(), pairs(2), adversaries=["sam"], rhos=[0.1]).notes)
    kept = bisam_lab.audit(with_norm(), pairs(2), adversaries=["sam"], rhos=[0.1])
    assert not any(said in note for note in kept.notes)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [("weights", math.nan, r"loss nan on batches\[0\]"), ("inputs", math.nan, r"loss nan on batches\[1\]"),
     ("held", math.inf, r"loss nan on held_out\[1\]"), ("weights", 1e308, r"loss (nan|inf) on batches\[0\]")],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused_by_name(where, value, said):
    net, batches, others = linear(), pairs(2), pairs(2, seed=3)
    place = {"weights": net.weight.data, "inputs": batches[1][0], "held": others[1][0]}[where]
    place[0, 0] = value
    with pytest.raises(ValueError, match=said):
        bisam_lab.audit(net, batches, adversaries=["sam"], rhos=[0.1], held_out=others)


@pytest.mark.parametrize(("names", "size"), [(["sam"], 1), (["msam"], 4), (["subbatch"], 4)])
def test_a_batch_of_one_under_batchnorm_is_refused_in_our_words(names, size):
    with pytest.raises(ValueError, match="has 1 sample, which BatchNorm cannot normalise: pass larger batches"):
        bisam_lab.audit(with_norm(), pairs(2, size=size), adversaries=names, rhos=[0.1])
