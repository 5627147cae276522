"""timm: its optimizers, scaler, schedules, EMA, tasks and checkpoints around the loop; its script where it is."""

import argparse
import copy
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import bisam
from bisam import SAM, BiSAM
from bisam.testing import bits
from tests.integrations.patches import DOCS, apply, image_folder, new_lines

timm = pytest.importorskip("timm")
pytestmark = [pytest.mark.matrix("timm"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from timm.data import Mixup  # noqa: E402
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler, dispatch_clip_grad  # noqa: E402

from tests.makers import MAKERS  # noqa: E402

SCRIPT = os.environ.get("BISAM_TIMM_TRAIN")


def network(name="test_resnet"):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=4)


def data(count, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 3, 32, 32, generator=rng), torch.randint(0, 4, (8,), generator=rng)) for _ in range(count)]


def build(model, method=BiSAM, opt="momentum", **choices):
    base = create_optimizer_v2(model, opt=opt, lr=0.05, weight_decay=1e-3)
    return method(base, model=model, **{"rho": 0.05, **choices})


def plain(model, opt, batches, clip=None, mode="norm"):
    for x, y in batches:
        for loss in opt.passes():
            loss(model(x), y).backward()
        if clip is not None:
            dispatch_clip_grad(model.parameters(), clip, mode=mode)
        opt.step()
        opt.zero_grad()


def close(model, other):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_real_model_learns(name):
    model = network(name) if name != "test_vit" else timm.create_model(name, num_classes=4, img_size=32)
    batch = data(1)[0]
    opt = build(model, opt="adamw")
    opt.param_groups[0]["lr"] = opt.param_groups[1]["lr"] = 0.002
    losses = []
    for _ in range(6):
        plain(model, opt, [batch])
        assert opt.last.perturbed
        losses.append(nn.functional.cross_entropy(model(batch[0]), batch[1]).item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("opt", ["lamb", "nadamw", "lion", "lars", "rmsproptf", "adamp", "lookahead_momentum", "adan"])
def test_optimizers_of_timm_take_the_gradient_and_resume(opt):
    batches, model = data(4), network()
    optimizer = build(model, opt=opt)
    plain(model, optimizer, batches[:2])
    twin = network()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    again = build(twin, opt=opt, rho=0.9)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    plain(model, optimizer, batches[2:])
    plain(twin, again, batches[2:])
    assert bits(model) == bits(twin)
    assert bits(model) != bits(network())


@pytest.mark.parametrize(("clip", "mode"), [(None, "norm"), (0.5, "norm"), (0.01, "value"), (0.02, "agc")])
@pytest.mark.parametrize("own_update", [False, True])
def test_native_scaler_around_the_loop(clip, mode, own_update):
    """Its call with need_update=False is backward() alone; a loss that reaches no weight makes it clip and step."""
    batches, model, other = data(3), network(), network()
    opt, scaler = build(model), NativeScaler(device="cpu")
    for x, y in batches:
        for objective in opt.passes(scaler._scaler):
            loss = objective(model(x), y)
            scaler(loss, opt, need_update=False)
        if own_update:
            leaf = loss.detach().requires_grad_()
            scaler(leaf, opt, clip_grad=clip, clip_mode=mode, parameters=model.parameters())
        else:
            scaler._scaler.unscale_(opt)
            if clip is not None:
                dispatch_clip_grad(model.parameters(), clip, mode=mode)
            scaler._scaler.step(opt)
            scaler._scaler.update()
        opt.zero_grad()
    plain(other, build(other), batches, clip, mode)
    close(model, other)
    assert bits(model) != bits(network())


@pytest.mark.parametrize("method", MAKERS.values(), ids=bisam.METHODS)
def test_every_method_is_that_of_the_plain_loop(method):
    """The optimizer in timm's groups, its scaler and its adaptive clipping."""
    batches, model, other = data(2), network(), network()
    opt, scaler = build(model, method), NativeScaler(device="cpu")
    for x, y in batches:
        for objective in opt.passes(scaler._scaler):
            scaler(objective(model(x), y), opt, need_update=False)
        scaler._scaler.unscale_(opt)
        dispatch_clip_grad(model.parameters(), 0.02, mode="agc")
        scaler._scaler.step(opt)
        scaler._scaler.update()
        opt.zero_grad()
    plain(other, build(other, method), batches, 0.02, "agc")
    close(model, other)
    assert bits(model) != bits(network())


def test_native_scaler_with_its_update_inside_the_loop_raises():
    model, scaler = network(), NativeScaler(device="cpu")
    opt, (x, y), before = build(model), data(1)[0], bits(model)
    with pytest.raises(RuntimeError, match="ascent pass"):
        for objective in opt.passes(scaler._scaler):
            scaler(objective(model(x), y), opt)
    assert bits(model) == before


def test_schedule_ema_and_checkpoints(tmp_path):
    """A run that is stopped and resumed as the script does it, the wrapper being made after the optimizer is loaded."""
    batches = data(6)

    def start():
        model = network()
        opt = build(model, SAM)
        schedule, _ = create_scheduler_v2(opt, "cosine", num_epochs=3, updates_per_epoch=2, step_on_epochs=False)
        return model, opt, schedule, ModelEmaV3(model, decay=0.9)

    def train(model, opt, schedule, ema, part, first):
        for number, batch in enumerate(part, first):
            plain(model, opt, [batch])
            ema.update(model, step=number)
            schedule.step_update(num_updates=number + 1)

    model, opt, schedule, ema = start()
    rates = []
    for epoch in range(3):
        train(model, opt, schedule, ema, batches[2 * epoch : 2 * epoch + 2], 2 * epoch)
        rates.append(opt.base.param_groups[0]["lr"])
    assert rates[0] > rates[1] > rates[2]

    half, opt, schedule, half_ema = start()
    train(half, opt, schedule, half_ema, batches[:4], 0)
    saver = CheckpointSaver(half, opt, model_ema=half_ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(1, metric=1.0)
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    second = network()
    second.load_state_dict(saved["state_dict"])
    base = create_optimizer_v2(second, opt="momentum", lr=0.05, weight_decay=1e-3)
    base.load_state_dict(saved["optimizer"])  # the script resumes the plain optimizer
    again = SAM(base, model=second, rho=0.9)
    assert again.param_groups[0]["rho"] == 0.05
    schedule, _ = create_scheduler_v2(again, "cosine", num_epochs=3, updates_per_epoch=2, step_on_epochs=False)
    schedule.step_update(num_updates=4)
    second_ema = ModelEmaV3(second, decay=0.9)
    second_ema.module.load_state_dict(saved["state_dict_ema"])
    train(second, again, schedule, second_ema, batches[4:], 4)
    assert bits(second) == bits(model)
    assert bits(second_ema.module) == bits(ema.module)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_with_soft_targets(smoothing):
    torch.manual_seed(0)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=smoothing, num_classes=4)
    model = network()
    opt = build(model, descent=SoftTargetCrossEntropy())
    for x, y in data(3):
        x, y = mixup(x, y) if y.device.type == "cuda" else _mixed(mixup, x, y)
        assert y.shape == (8, 4)
        plain(model, opt, [(x, y)])
        assert opt.last.perturbed
        assert opt.last.ascent_value < 1  # a lower bound of an error rate
    assert all(p.isfinite().all() for p in model.parameters())


def _mixed(mixup, x, y):
    from timm.data import mixup as module

    lam = mixup._mix_batch(x)
    return x, module.mixup_target(y, 4, lam, mixup.label_smoothing)


def by_task(task, opt, batches):
    """What the patch puts into the script: each pass's objective where the task looks for its criterion."""
    for x, y in batches:
        for task.__dict__["criterion"] in opt.passes():
            loss = task(x, y)["loss"]
            loss.backward()
        opt.step()
        opt.zero_grad()


def test_a_task_takes_the_objective_for_its_criterion():
    task_module = pytest.importorskip("timm.task")
    batches, model, other = data(3), network(), network()
    criterion = LabelSmoothingCrossEntropy(0.1)
    task = task_module.ClassificationTask(model, criterion, verbose=False)
    opt = build(model, descent=task.criterion)
    opt.model = task
    by_task(task, opt, batches)
    plain(other, build(other, descent=criterion), batches)
    assert bits(model) == bits(other)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))
    del task.__dict__["criterion"]
    with pytest.raises(RuntimeError, match="without a call"):
        for _ in opt.passes():
            task(*batches[0])["loss"].backward()


def test_distillation_keeps_the_teachers_part_in_both_passes():
    task_module = pytest.importorskip("timm.task")
    (x, y), model = data(1)[0], network()
    torch.manual_seed(1)
    teacher = task_module.DistillationTeacher(timm.create_model("test_resnet", num_classes=4))
    task = task_module.LogitDistillationTask(model, teacher, nn.CrossEntropyLoss(), verbose=False)
    opt, losses = build(model), []
    opt.model = task
    for task.__dict__["criterion"] in opt.passes():
        found = task(x, y)
        found["loss"].backward()
        losses.append(found)
    bound, entropy = (found["task_loss"] for found in losses)
    assert bound.item() == pytest.approx(opt.last.ascent_value)
    assert all(found["kd_loss"] > 0 for found in losses)
    assert entropy > bound
    assert teacher.model.training is False


def test_lookahead_is_found_on_the_base():
    opt = build(network(), opt="lookahead_momentum")
    assert callable(opt.base.sync_lookahead)


# -- the page, and the script ------------------------------------------------------------------------------------


def test_the_patches_have_five_new_lines_each():
    assert [len(new_lines("timm.md", number)) for number in (0, 1)] == [5, 5]


def test_the_loop_on_the_page_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "timm.md").read_text(), re.DOTALL)
    model = network()
    before = bits(model)
    exec(block, {"torch": torch, "timm": timm, "BiSAM": BiSAM, "model": model, "loader": data(2)})
    assert bits(model) != before


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The patched script, whichever of the two patches is for it, and its path."""
    path = tmp_path_factory.mktemp("timm") / "train.py"
    source = Path(SCRIPT).read_text()
    path.write_text(apply("timm.md", source, number="result = task(" not in source))
    spec = importlib.util.spec_from_file_location("patched_timm_train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


needs_script = pytest.mark.skipif(not SCRIPT, reason="BISAM_TIMM_TRAIN names no train.py of timm (it is in no wheel)")


@needs_script
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_patched_script_trains_as_the_plain_loop(script, scaled, accumulate):
    """Its own train_one_epoch(), patched, against our loop."""
    batches, model, other = data(4), network(), network()
    args = argparse.Namespace(
        mixup_off_epoch=0, grad_accum_steps=accumulate, prefetcher=False, channels_last=False, clip_grad=0.5,
        clip_mode="norm", distributed=False, log_interval=1, local_rank=0, rank=0, world_size=1, save_images=False,
        recovery_interval=0, synchronize_step=False,
    )  # fmt: skip
    criterion = LabelSmoothingCrossEntropy(0.1)
    common = {"device": torch.device("cpu"), "amp_autocast": nullcontext}
    common["loss_scaler"] = NativeScaler(device="cpu") if scaled else None
    opt = build(model, descent=criterion)
    if "task" in inspect.signature(script.train_one_epoch).parameters:
        task = importlib.import_module("timm.task").ClassificationTask(model, criterion, verbose=False)
        opt.model = task
        metrics = script.train_one_epoch(0, model, batches, opt, args, task=task, **common)
    else:
        metrics = script.train_one_epoch(0, model, batches, opt, criterion, args, **common)
    opt = build(other, descent=criterion)
    for first in range(0, 4, accumulate):
        for x, y in batches[first : first + accumulate]:
            for loss in opt.passes():
                (loss(other(x), y) / accumulate).backward()
        dispatch_clip_grad(other.parameters(), 0.5)
        opt.step()
        opt.zero_grad()
    close(model, other)
    assert bits(model) != bits(network())
    assert isinstance(metrics, OrderedDict)


@needs_script
def test_the_patched_script_as_a_command_resumes(script, tmp_path):
    """One epoch of a folder of images, then the next from its checkpoint: rho and the count of steps come back."""
    image_folder(tmp_path / "images", classes=3, splits=("train", "validation"))

    def run(*more):
        options = "--model test_resnet --num-classes 3 --device cpu -b 6 -j 0 --input-size 3 32 32 --lr 0.01 --epochs 2"
        command = [sys.executable, script.__file__, "--data-dir", tmp_path / "images", "--output", tmp_path]
        command += [*options.split(), *more]
        subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=300)
        return torch.load(tmp_path / more[-1] / "checkpoint-1.pth.tar", weights_only=False)["optimizer"]

    whole = run("--experiment", "whole")
    again = run("--resume", tmp_path / "whole" / "checkpoint-0.pth.tar", "--experiment", "again")
    for group in whole["param_groups"] + again["param_groups"]:
        assert group["rho"] == 0.05
        assert group["sharpness_steps"] == 4
