"""The laboratory's steps are those of a raw PyTorch loop."""

import copy
import math

import pytest
import torch
from torch import nn

from bisam import METHODS, RhoScheduler
from bisam.loops import SharpestSamples, SubBatch, micro_batches
from bisam_lab.data import load_splits, whole
from bisam_lab.models import ResNet, build_model
from bisam_lab.recipe import load
from bisam_lab.run.optimizer import build_optimizer
from bisam_lab.run.train import train

TINY = (
    "data.train_size=96",
    "data.validation_size=50",
    "model.options.width=4",
    "train.epochs=2",
    "train.batch_size=32",
)


class BeforeClimbing:
    """Stands for the objective of the pass at w."""

    is_ascent = True


class Passes:
    """Chooses the samples of each pass, and counts the passes; choosing by a forward pass is a third of one."""

    def __init__(self, choose):
        self.choose, self.taken = choose, 0.0

    def __call__(self, objective, model, x, y, share):
        xs, ys = self.choose(objective, model, x, y)
        looked = isinstance(self.choose, SharpestSamples) and not objective.is_ascent
        self.taken += share * (len(xs) / len(x) + looked / 3)
        return xs, ys


@pytest.mark.matrix("laboratory")
@pytest.mark.parametrize(
    "method", ["sgd", "bisam-tanh", "bisam-log+msam", "esam+asam", "bisam-log+subbatch", "every@k=2", *METHODS]
)
def test_a_run_equals_a_raw_loop(method):
    """Fabric, the study and the logs change no number."""
    recipe = load("digits", [*TINY, "train.label_smoothing=0.1", "sharpness.options.msam.m=2"])
    result = train(recipe, method, seed=3)
    splits = load_splits(recipe.data, None, 3)
    torch.manual_seed(3)
    model = build_model(recipe.model, (1, 8, 8), 10)
    opt = build_optimizer(method, recipe, model, steps=6, classes=10)
    radius = RhoScheduler(opt, lr_max=0.1) if method == "gsam" else None
    choose = SharpestSamples(0.5) if "esam" in method.split("+") else lambda loss, model, x, y: (x, y)
    if "subbatch" in method:
        choose = lambda loss, model, x, y: SubBatch()(loss, x, y)  # noqa: E731
    passes = Passes(choose)
    validation = whole(splits.validation)
    steps, smooth = 0, nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in result.history:
        losses, norms, moved, right = [], [], [], []
        model.train()
        for batch in splits.train.shuffled(32, seed=3, epoch=epoch.epoch):
            for group in opt.base.param_groups:
                group["lr"] = 0.1 * (1 + torch.cos(torch.tensor(steps / 6 * torch.pi, dtype=torch.float64)).item()) / 2
            if radius is not None:
                radius.step()
            losses.append(torch.zeros(()))
            for x, y, share in micro_batches(2 if "msam" in method.split("+") else 1, batch.x, batch.y):
                few = SubBatch()(BeforeClimbing, x, y) if "subbatch" in method else (x, y)
                logits = copy.deepcopy(model)(few[0]).detach()
                at_w = smooth(logits, few[1])
                right += (logits.argmax(1) == few[1]).tolist()
                for objective in opt.passes():
                    xs, ys = passes(objective, model, x, y, share)
                    loss = objective(model(xs), ys)
                    (share * loss).backward()
                losses[-1] += share * (loss.detach() if method in ("momentumsam", "asyncsam") else at_w)
                moved += [opt.last.norm] if opt.last.perturbed else []
            norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
            opt.step()
            opt.zero_grad()
            steps += 1
        assert float(torch.stack(losses).mean()) == pytest.approx(epoch.train_loss, rel=1e-5)
        assert epoch.passes == pytest.approx(passes.taken / len(losses))
        passes.taken = 0.0
        assert epoch.loss_at == ("w + eps" if method in ("momentumsam", "asyncsam") else "w")
        assert epoch.gradient_norm == pytest.approx(float(torch.stack(norms).mean()), rel=1e-4)
        assert epoch.eps_norm == pytest.approx(sum(moved) / max(len(moved), 1), rel=1e-4)
        assert epoch.steps == len(losses)
        assert radius is not None or epoch.rho == opt.param_groups[0]["rho"]
        if epoch.loss_at == "w":
            assert epoch.train_score == pytest.approx(sum(right) / len(right), abs=0.011), "of the labels trained on"
        else:
            assert math.isnan(epoch.train_score)
        model.eval()
        right = (model(validation.x).argmax(1) == validation.y).float().mean()
        assert float(right) == pytest.approx(epoch.validation_score)


def test_sgd_is_plain_sgd():
    """The baseline goes through the same loop with rho = 0, and is torch's SGD to the bit."""
    recipe = load("digits", [*TINY])
    ours, plain = ResNet(8, 1, 10, width=2), ResNet(8, 1, 10, width=2)
    plain.load_state_dict(ours.state_dict())
    opt = build_optimizer("sgd", recipe, ours, 6, 10)
    base = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
    for _ in range(3):
        for loss in opt.passes():
            loss(ours(x), y).backward()
        opt.step()
        opt.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        base.step()
        base.zero_grad()
    for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)
