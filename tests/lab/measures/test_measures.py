"""Each measure against a number worked out by hand or by a plain loop; and the weights are put back, bit for bit."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bisam_lab.data.examples import Examples, InMemory, stream
from bisam_lab.data.normalise import Normalise
from bisam_lab.measures.calibration import calibration, fitted_temperature
from bisam_lab.measures.corruptions import CORRUPTIONS, corruptions
from bisam_lab.measures.forgetting import forgetting
from bisam_lab.measures.quantised import quantised, rounded
from bisam_lab.measures.subject import Subject, accuracy
from bisam_lab.measures.weight_noise import weight_noise
from bisam_lab.measures.worst_class import worst_class
from bisam_lab.recipe import load
from bisam_lab.registry.measures import MEASURES
from bisam_lab.run.fabric import build_fabric


class Told(nn.Module):
    """Its logits are its inputs."""

    def __init__(self, classes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(classes))

    def forward(self, x):
        return x @ self.weight


def subject(model, test, validation=None, train=None, classes=3, batch_size=8):
    fabric = build_fabric(load("digits", []).engine)
    return Subject(
        fabric.setup(model), model, fabric, train or test, validation or test, test, classes, batch_size, seed=3
    )


def told(logits, labels):
    return InMemory(Examples(torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels)))


def certain(p):
    """Logits of probability p for class 0, and the rest shared by the two others."""
    return [math.log(p), math.log((1 - p) / 2), math.log((1 - p) / 2)]


def test_calibration_by_hand():
    """Ten at 90 %, eight of them right; ten at 60 %, six of them right: ECE is (|0.9 - 0.8| + 0) / 2."""
    test = told([certain(0.9)] * 10 + [certain(0.6)] * 10, [0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    found = calibration(subject(Told(), test))
    assert found["ece"] == pytest.approx(0.05, abs=1e-6)
    likelihood = [0.9] * 8 + [0.05] * 2 + [0.6] * 6 + [0.2] * 4
    assert found["nll"] == pytest.approx(-np.mean(np.log(likelihood)), rel=1e-5)
    assert found["nll_scaled"] < found["nll"]


def test_the_temperature_is_that_of_validation():
    rng = torch.Generator().manual_seed(0)
    right = 2 * torch.randn(4000, 3, generator=rng, dtype=torch.float64)
    labels = torch.multinomial(right.softmax(1), 1, generator=rng)[:, 0]
    assert fitted_temperature(3 * right, labels) == pytest.approx(3, rel=0.05)
    validation, test = told(3 * right[:2000], labels[:2000]), told(3 * right[2000:], labels[2000:])
    found = calibration(subject(Told(), test, validation))
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["nll_scaled"] == pytest.approx(
        float(F.cross_entropy(3 * right[2000:].float() / found["temperature"], labels[2000:])), rel=1e-4
    )
    assert found["ece_scaled"] < 0.04 < 0.1 < found["ece"]


def test_logits_that_are_no_numbers_have_no_calibration():
    found = calibration(subject(Told(), told([[0.0, math.nan, 0.0]], [0])))
    assert all(math.isnan(number) for number in found.values())
    assert set(found) == {quantity.key for quantity in MEASURES["calibration"].quantities}


def test_rounding_to_whole_multiples_of_a_channels_scale():
    weight = torch.tensor([[7.0, 3.4, -1.6, -7.0], [0.0, 0.0, 0.0, 0.0], [0.14, -0.07, 0.031, 0.02]])
    expected = torch.tensor([[7.0, 3.0, -2.0, -7.0], [0.0, 0.0, 0.0, 0.0], [0.14, -0.06, 0.04, 0.02]])
    expected[2, 1] = -0.08 if round(-0.07 / 0.02) == -4 else -0.06  # -3.5 is rounded to an even number
    torch.testing.assert_close(rounded(weight, 4), expected)
    torch.testing.assert_close(rounded(weight, 8), weight, atol=7 / 254 + 1e-6, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_channel_that_is_no_number_is_not_rounded_to_one(bad):
    for bits in (8, 4):
        found = rounded(torch.tensor([[1.0, bad, 0.5], [7.0, 3.4, 0.0]]), bits)
        assert found[0].isnan().all()
        assert torch.equal(found[1], rounded(torch.tensor([[7.0, 3.4, 0.0]]), bits)[0])
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight[1, 0] = bad
    found = quantised(subject(model, told([[0.5, 1.0]], [1])))
    assert math.isnan(found["loss_int4"]) and found["accuracy_int4"] == 0


def test_rounded_weights_are_those_that_are_measured():
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[7.0, 0.4], [7.0, 0.6], [-7.0, 0.0]]))
        model.bias.copy_(torch.tensor([0.123, 0.0, 0.0]))
    before = copy.deepcopy(model.state_dict())
    test = told([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [1, 0, 0])
    found = quantised(subject(model, test))
    plain = nn.Linear(2, 3)
    plain.load_state_dict({"weight": torch.tensor([[7.0, 0.0], [7.0, 1.0], [-7.0, 0.0]]), "bias": before["bias"]})
    logits = plain(test.examples.x).detach()
    assert found["loss_int4"] == pytest.approx(float(F.cross_entropy(logits, test.labels)))
    assert found["accuracy_int4"] == accuracy(logits, test.labels)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_worst_class_and_the_mean_over_classes():
    eye = torch.eye(3)
    test = told(eye[[0, 0, 0, 0, 1, 0, 2]], [0, 0, 0, 0, 1, 1, 2])
    assert worst_class(subject(Told(), test)) == {"worst": 0.5, "mean": pytest.approx((1 + 0.5 + 1) / 3)}


def test_noise_on_weights_is_relative_and_the_same_for_all():
    """Twice the weights have twice the noise: the predictions do not change."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    test = told(torch.randn(400, 4), torch.randint(0, 3, (400,)))
    test = told(test.examples.x, model(test.examples.x).argmax(1))
    found = weight_noise(subject(model, test))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(2)
    assert weight_noise(subject(model, test)) == found
    assert all(torch.equal(value, 2 * before[key]) for key, value in model.state_dict().items())
    sizes = list(found.values())
    assert sizes == sorted(sizes, reverse=True)
    assert 0.95 < sizes[0] < 1 or sizes[0] == 1
    by_hand = []
    for draw in range(5):
        rng, noisy = stream(3, draw), copy.deepcopy(model)
        with torch.no_grad():
            for param in noisy.parameters():
                param += 0.2 * param.square().mean().sqrt() * torch.randn(param.shape, generator=rng)
        by_hand.append(accuracy(noisy(test.examples.x), test.labels))
    assert found["noise_0.2"] == pytest.approx(np.mean(by_hand))


def images(n, channels=1, size=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, channels, size, size), generator=rng, dtype=torch.uint8)
    return InMemory(Examples(x, x.float().mean((1, 2, 3)).gt(127.5).long()), Normalise(*_moments(channels)))


def _moments(channels):
    return torch.full((1, channels, 1, 1), 0.5), torch.full((1, channels, 1, 1), 0.25)


def test_forgetting_is_what_a_plain_loop_on_permuted_pixels_loses():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    train, test = images(64), images(100, seed=1)
    twin, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    found = forgetting(subject(model, test, train=train, classes=2))
    order = torch.randperm(64, generator=stream(3, 1))

    def permuted(x):
        return x.flatten(2)[:, :, order].view(x.shape)

    def score(change=lambda x: x):
        return accuracy(twin.eval()(change(test.prepare(test.examples.x))), test.labels)

    first = score()
    opt = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)
    for batch in train.shuffled(8, 3, 1):
        opt.zero_grad()
        F.cross_entropy(twin.train()(permuted(batch.x)), batch.y).backward()
        opt.step()
    assert found == {"lost": pytest.approx(first - score()), "second": pytest.approx(score(permuted))}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


class Counting(Told):
    """Has a buffer that is not saved, and a state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.passes = self.passes + 1
        return super().forward(x) / (1 + self.passes)

    def get_extra_state(self):
        return {"kind": "counting"}

    def set_extra_state(self, state):
        assert state == {"kind": "counting"}


def test_what_a_network_does_not_save_is_put_back_too():
    model = Counting()
    about = subject(model, told(torch.eye(3), [0, 1, 2]))
    with about.changed() as params, torch.no_grad():
        model.train()(torch.eye(3))
        params[0][1].zero_()
    assert model.passes == 0
    assert torch.equal(model.weight, torch.eye(3))


class Kept(nn.Module):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.given, self.weight = [], nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.given.append(x.clone())
        return x.flatten(1)[:, :2] + self.weight


@pytest.mark.parametrize("channels", [1, 3])
def test_corrupted_images_are_what_their_kind_says(channels):
    test, kept = images(20, channels, 16), Kept()
    found = corruptions(subject(kept, test, classes=2))
    assert set(found) == {"mean", *CORRUPTIONS}
    assert found["mean"] == pytest.approx(np.mean([found[kind] for kind in CORRUPTIONS]))
    clean = test.examples.x.float() / 255
    each = dict(zip([(k, s) for k in CORRUPTIONS for s in range(3)], [x * 0.25 + 0.5 for x in kept.given], strict=True))
    assert all(x.shape == clean.shape and x.min() >= -1e-6 and x.max() <= 1 + 1e-6 for x in each.values())
    inside = (clean > 0.35) & (clean < 0.65)
    noise = (each["gaussian-noise", 2] - clean)[inside]
    assert float(noise.std()) == pytest.approx(0.10, rel=0.1)
    shot = (each["shot-noise", 2] - clean)[inside]
    assert float(shot.std()) == pytest.approx(math.sqrt(0.5 / 50), rel=0.1)
    hit = each["impulse-noise", 2].sub(clean).abs() > 1e-6
    assert float(hit.float().mean()) == pytest.approx(0.07, abs=0.02)
    torch.testing.assert_close(each["brightness", 1], (1.3 * clean).clamp(max=1), atol=1e-5, rtol=0)
    assert float(each["contrast", 2].std() / clean.std()) == pytest.approx(0.15, rel=0.1)
    assert float(each["gaussian-blur", 2].std()) < float(each["gaussian-blur", 0].std()) < float(clean.std())
    for kind in ("pixelate", "jpeg"):
        off = [float((each[kind, severity] - clean).abs().mean()) for severity in range(3)]
        assert 0 < off[0] < off[2]
    again = Kept()
    corruptions(subject(again, test, classes=2))
    assert all(torch.equal(a, b) for a, b in zip(kept.given, again.given, strict=True)), "the same for every method"
