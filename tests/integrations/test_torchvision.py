"""torchvision: a model, soft targets, label smoothing and averaging around the loop; its script where it is at hand."""

import argparse
import copy
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bisam
from bisam import SAM, BiSAM, LowerBoundLoss
from bisam.testing import bits
from tests.integrations.patches import DOCS, apply, image_folder, new_lines

torchvision = pytest.importorskip("torchvision")
from torchvision.transforms import v2  # noqa: E402

from tests.makers import MAKERS  # noqa: E402

pytestmark = pytest.mark.matrix("torchvision")
FOLDER = os.environ.get("BISAM_TORCHVISION_REFERENCES")


class Small(nn.Module):
    """ResNet's pieces without its size: the tests compare numbers, and each step of a ResNet-18 takes its time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torchvision.ops.Conv2dNormActivation(3, 8, stride=2)
        self.block = torchvision.models.resnet.BasicBlock(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def data(count, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 3, 16, 16, generator=rng), torch.randint(0, 4, (8,), generator=rng)) for _ in range(count)]


def build(model, method=BiSAM, rho=0.05, **choices):
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    return method(base, model=model, rho=rho, **choices)


def train(model, opt, batches, clip=None):
    for x, y in batches:
        for loss in opt.passes():
            loss(model(x), y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        opt.zero_grad()


def test_a_resnet_learns():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    x, y = torch.randn(8, 3, 32, 32), torch.randint(0, 4, (8,))
    opt = build(model)
    opt.param_groups[0]["lr"] = 0.01
    first = nn.functional.cross_entropy(model(x), y).item()
    train(model, opt, [(x, y)] * 4)
    assert opt.last.perturbed
    assert nn.functional.cross_entropy(model(x), y).item() < 0.7 * first


@pytest.mark.parametrize("mixing", [v2.MixUp, v2.CutMix])
@pytest.mark.parametrize("bound", ["log", "tanh"])
def test_mixed_samples_with_soft_targets(mixing, bound):
    torch.manual_seed(0)
    model, mix = Small(), mixing(num_classes=4)
    opt = build(model, bound=bound, descent=nn.CrossEntropyLoss(label_smoothing=0.1))
    for batch in data(3):
        x, y = mix(*batch)
        assert y.shape == (8, 4)
        assert ((y > 0).sum(1) == 2).any()
        with torch.no_grad():
            one_hot = torch.eye(4)
            by_hand = sum(
                y[:, k].dot(LowerBoundLoss(bound, reduction="none")(copy.deepcopy(model)(x), one_hot[k].expand(8, 4)))
                for k in range(4)
            )
        train(model, opt, [(x, y)])
        assert opt.last.perturbed
        assert opt.last.ascent_value == pytest.approx(by_hand.item() / 8, rel=1e-5)
        assert opt.last.ascent_value < 1


def test_one_hot_targets_are_class_indices():
    one, two = Small(), Small()
    batches = data(3)
    train(one, build(one), batches)
    train(two, build(two), [(x, nn.functional.one_hot(y, 4).float()) for x, y in batches])
    torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=1e-4, atol=1e-6)


def test_label_smoothing_is_in_the_descent_alone():
    """The ascent gradient, and so the first step's perturbation, is the same with and without it; descent differs."""
    moves, grads = [], []
    for smoothing in (0.0, 0.3):
        model, (x, y) = Small(), data(1)[0]
        opt = build(model, descent=nn.CrossEntropyLoss(label_smoothing=smoothing))
        for loss in opt.passes():
            if not loss.is_ascent:
                moves.append(bits(model))
            loss(model(x), y).backward()
        grads.append(model.head.weight.grad)
    assert moves[0] == moves[1]
    assert not torch.allclose(grads[0], grads[1])


@pytest.mark.parametrize("method", MAKERS.values(), ids=bisam.METHODS)
def test_every_method_is_that_of_the_plain_loop(method):
    """With MixUp, label smoothing, and the script's way of scaling, unscaling and clipping."""
    torch.manual_seed(0)
    mix, model, other = v2.MixUp(num_classes=4), Small(), Small()
    batches, smooth = [mix(*batch) for batch in data(2)], nn.CrossEntropyLoss(label_smoothing=0.1)
    opt, scaler = build(model, method, descent=smooth), torch.amp.GradScaler("cpu")
    for x, y in batches:
        for criterion in opt.passes(scaler):
            loss = criterion(model(x), y)
            scaler.scale(loss).backward()
        scaler.scale(loss.detach().requires_grad_()).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    train(other, build(other, method, descent=smooth), batches, 0.5)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-6)
    assert bits(model) != bits(Small())


def test_an_averaged_model_averages_weights_that_are_back():
    """references/ updates it after the step, buffers included."""
    model, batches = Small(), data(4)
    opt = build(model, SAM, rho=2.0)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    mean = None
    for batch in batches:
        train(model, opt, [batch])
        ema.update_parameters(model)
        now = [t.clone() for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()]
        mean = now if mean is None else [0.9 * m + 0.1 * n for m, n in zip(mean, now, strict=True)]
    held = [t for t in [*ema.module.parameters(), *ema.module.buffers()] if t.is_floating_point()]
    for ours, by_hand in zip(held, mean, strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)


def test_a_leaf_loss_leaves_the_gradient_alone():
    """What the patch rests on: after the loop the script's own backward() reaches no weight, scaled or not."""
    model, (x, y) = Small(), data(1)[0]
    opt, scaler = build(model), torch.amp.GradScaler("cpu")
    for criterion in opt.passes():
        loss = criterion(model(x), y)
        loss.backward()
    before = [p.grad.clone() for p in model.parameters()]
    loss = loss.detach().requires_grad_()
    scaler.scale(loss).backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


# -- the page, and the script ------------------------------------------------------------------------------------


def test_the_patch_has_five_new_lines():
    assert len(new_lines("torchvision.md")) == 5


def test_the_loop_on_the_page_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "torchvision.md").read_text(), re.DOTALL)
    names = {"torch": torch, "torchvision": torchvision, "v2": v2, "BiSAM": BiSAM, "loader": data(1)}
    exec(block, names)
    assert names["optimizer"].last.perturbed


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The patched script, with its neighbours importable, as where it stands."""
    (tmp_path / "train.py").write_text(apply("torchvision.md", (Path(FOLDER) / "train.py").read_text()))
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("utils", "presets", "transforms", "sampler"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("patched_torchvision_train", tmp_path / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


needs_script = pytest.mark.skipif(not FOLDER, reason="BISAM_TORCHVISION_REFERENCES names no folder (it is in no wheel)")


@needs_script
@pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.autocast:FutureWarning")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_patched_script_trains_as_the_plain_loop(script, scaled, clip):
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    model, other, batches = Small(), Small(), data(4)
    args = argparse.Namespace(print_freq=1, clip_grad_norm=clip, model_ema_steps=1, lr_warmup_epochs=0)
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    five = nn.Linear(4, 5)  # the script logs the top five
    with torch.no_grad():
        five.weight.copy_(torch.eye(5, 4))
        five.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -50.0]))
    for net in (model, other):
        net.head = nn.Sequential(net.head, copy.deepcopy(five).requires_grad_(False))
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    opt = build(model, descent=criterion)
    script.train_one_epoch(model, criterion, opt, batches, torch.device("cpu"), 0, args, ema, scaler)
    train(other, build(other, descent=criterion), batches, clip)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-6)
    assert bits(model.stem) != bits(Small().stem)
    assert int(ema.n_averaged) == 4


@needs_script
def test_the_patched_script_as_a_command_resumes(tmp_path):
    """One epoch of a folder of images, then the next from its checkpoint: rho and the count of steps come back."""
    image_folder(tmp_path / "images", classes=5, splits=("train", "val"))
    for path in Path(FOLDER).glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    source = apply("torchvision.md", (Path(FOLDER) / "train.py").read_text())
    reads = r'torch\.load\(args\.resume, map_location="cpu"[^)]*\)'  # as the page says: it holds more than weights
    source, found = re.subn(reads, 'torch.load(args.resume, map_location="cpu", weights_only=False)', source)
    assert found == 1
    (tmp_path / "train.py").write_text(source)

    def run(epochs, *more):
        options = "--model mobilenet_v3_small --device cpu -b 10 -j 0 --lr 0.01 --val-resize-size 32 --val-crop-size 32"
        command = [sys.executable, "train.py", "--data-path", "images", "--output-dir", ".", "--epochs", str(epochs)]
        command += [*options.split(), "--train-crop-size", "32", *more]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
        return torch.load(tmp_path / "checkpoint.pth", weights_only=False)["optimizer"]["param_groups"][0]

    assert run(1)["sharpness_steps"] == 2
    again = run(2, "--resume", "checkpoint.pth")
    assert again["sharpness_steps"] == 4
    assert again["rho"] == 0.05
