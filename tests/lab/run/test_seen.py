"""What an epoch records of its steps: after an interruption, in a checkpoint of an older version, under clipping."""

import copy
import math

import pytest
import torch

from bisam_lab.recipe import load
from bisam_lab.registry.metrics import METRICS
from bisam_lab.run.asking import alone
from bisam_lab.run.checkpoint import Checkpoints
from bisam_lab.run.logs import logged
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.resumable import Training
from bisam_lab.run.seen import Seen, effective_samples

from .runs import TINY, StopAfter

SCORE = METRICS["accuracy"].score


def epoch(folder, stop=None, forget=False):
    """The first epoch of a run, or of one that stopped after some steps and was continued."""
    recipe, checkpoints = load("digits", [*TINY, "train.epochs=1", "train.clip=0.01"]), Checkpoints(folder)
    if stop is not None:
        with pytest.raises(Stopped):
            alone(Training(recipe, "sam", 1).epoch(StopAfter(stop), checkpoints, 1e9))
    run = Training(recipe, "sam", 1)
    if stop is not None:
        state = checkpoints.load()
        run.restore({k: v for k, v in state.items() if k != "seen"} if forget else state)
    return alone(run.epoch(Observer(), None, 1e9))


def test_an_interrupted_epoch_records_the_same(tmp_path):
    whole, resumed = epoch(tmp_path / "a"), epoch(tmp_path / "b", stop=2)
    assert vars(whole) | {"seconds": 0} == vars(resumed) | {"seconds": 0}
    assert whole.gradient_norm > 0.1, "before clipping"
    assert whole.eps_norm == pytest.approx(whole.rho)
    assert {"train_score", "rho", "eps_norm", "gradient_norm", "passes", "seconds"} < logged(whole).keys()
    assert {"climbed", "vanished", "ascent_samples", "error_rise", "perturbed_loss"} < logged(whole).keys()


def test_an_epoch_whose_first_steps_nobody_recorded_says_nothing(tmp_path):
    """A checkpoint of an older version holds no record of its steps; a mean of the rest would be another number."""
    found = epoch(tmp_path, stop=2, forget=True)
    assert all(math.isnan(getattr(found, name)) for name in ("gradient_norm", "eps_norm", "climbed", "error_rise"))
    assert "gradient_norm" not in logged(found)


def test_what_a_mean_leaves_out():
    seen = Seen()
    for norm, eps in ((1.0, 0.5), (math.inf, 0.0), (3.0, None)):
        climb = None if eps is None else tuple(torch.tensor(x) for x in (eps, 8 * eps, -eps, 3.0 + eps))
        seen.row(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor(norm), climb)
    read = Seen.restored(seen.state(), torch.device("cpu")).read(3, SCORE)
    expected = {"gradient_norm": 2.0, "eps_norm": 0.5, "train_score": 0.5, "climbed": 2 / 3, "vanished": 0.5}
    expected |= {"ascent_samples": 4.0, "error_rise": -0.5, "perturbed_loss": 3.5}
    assert read == expected == seen.read(3, SCORE)
    assert Seen().read(0, SCORE)["eps_norm"] == 0.0


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1.0, 1, 1, 1], 4.0), ([5.0, 0, 0, 0], 1.0), ([1e-30, 1e-30, 0, 0], 2.0), ([3.0, 1, 0, 0], 1.6)],
)
def test_the_effective_number_of_samples(weights, expected):
    gradient = torch.tensor(weights)[:, None] * torch.tensor([[0.5, -0.25, -0.25]])
    assert float(effective_samples(gradient)) == pytest.approx(expected)
    assert effective_samples(torch.stack([gradient, gradient])).tolist() == pytest.approx([expected] * 2)
    assert effective_samples(torch.zeros(4, 3)).isnan()


@pytest.mark.parametrize("method", ["sam", "bisam-log", "gsam+bisam-log", "functionalsam", "momentumsam", "sgd"])
def test_a_step_records_what_two_plain_passes_find(method):
    """At w and at w + eps, by hand: error, loss, and the ascent objective's gradient at the logits."""
    recipe = load("digits", [*TINY, "train.epochs=1", "engine.precision=64-true", f"methods=['{method}']"])
    run = Training(recipe, method, 0)
    run.steps.begin()
    first, second, *_ = run.train.shuffled(32, 0, 1)
    alone(run.steps.step(first))
    run.steps.seen = Seen()
    passes, inner = [], run.opt.passes

    def watched(scaler=None):
        for objective in inner(scaler):
            twin = copy.deepcopy(run.model)
            out = twin(second.x.double())
            logits = out.detach().requires_grad_()
            objective.loss(logits, second.y).backward() if objective.is_ascent else None
            passes.append((objective.is_ascent, out.detach(), logits.grad))
            yield objective

    run.opt.passes = watched
    alone(run.steps.step(second))
    found = run.steps.seen.read(1, SCORE)
    wrong = [float(out.argmax(1).ne(second.y).double().mean()) for _, out, _ in passes]
    loss = float(torch.nn.functional.cross_entropy(passes[-1][1], second.y))
    if method == "sgd":
        assert found["climbed"] == 0
        assert all(math.isnan(found[name]) for name in ("vanished", "ascent_samples", "error_rise", "perturbed_loss"))
        return
    assert (found["climbed"], found["vanished"]) == (1, 0)
    assert found["perturbed_loss"] == pytest.approx(loss)
    if method == "momentumsam":
        assert math.isnan(found["error_rise"]) and math.isnan(found["ascent_samples"])
        return
    assert found["error_rise"] == pytest.approx(wrong[-1] - wrong[0])
    gradient = [grad for is_ascent, _, grad in passes if is_ascent][-1]
    weights = gradient.abs().sum(1)
    assert found["ascent_samples"] == pytest.approx(float(weights.sum() ** 2 / (weights**2).sum()))
