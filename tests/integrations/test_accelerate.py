"""Accelerate: the documented loop is the plain loop to the bit, alone and in two workers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

import bisam
from bisam import BiSAM
from bisam.cadence import Every
from bisam.testing import Net, batches, bits
from tests.makers import MAKERS
from tests.pages import run_example, run_page

from . import accelerate_worker

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.matrix("Accelerate")
FAMILY = pytest.mark.parametrize("method", MAKERS.values(), ids=bisam.METHODS)


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """The state of Accelerate is one per process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def build(method=BiSAM, dropout=0.2, **kwargs):
    model = Net(dropout=dropout).float()
    return model, method(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.5, **kwargs)


def data(count):
    return [(x.float(), y) for x, y in batches(count)]


def train(accelerator, net, opt, stepper, steps, clip=0.0, scheduler=None):
    for i, (x, y) in enumerate(steps):
        torch.manual_seed(i)
        with accelerator.accumulate(net):
            for loss in opt.passes():
                accelerator.backward(loss(net(x), y))
            if clip and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(net.parameters(), clip)
            stepper.step()
            if scheduler is not None:
                scheduler.step()
            stepper.zero_grad()


def plain(model, opt, steps, clip=0.0, every=1, context=None, scheduler=None):
    for i, (x, y) in enumerate(steps):
        torch.manual_seed(i)
        for loss in opt.passes():
            with context or torch.autocast("cpu", enabled=False):
                out = model(x)
            (loss(out.float(), y) / every).backward()
        if (i + 1) % every == 0:
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            if scheduler is not None:
                scheduler.step()
            opt.zero_grad()


def assert_same(one, other):
    assert [a == b for a, b in zip(bits(one), bits(other), strict=True)] == [True] * len(bits(one))
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


@FAMILY
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_loop_is_the_plain_loop(method, precision, every):
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=every)
    model, opt = build(method)
    net, stepper = accelerator.prepare(model, opt)
    train(accelerator, net, opt, stepper, data(4), clip=0.05)
    other, plain_opt = build(method)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else None
    plain(other, plain_opt, data(4), 0.05, every, context)
    assert_same(accelerator.unwrap_model(net), other)
    assert opt.param_groups[0]["sharpness_steps"] == 4 // every
    assert stepper.optimizer is opt


def test_a_scheduler_steps_with_the_optimizer():
    accelerator, steps = Accelerator(cpu=True, gradient_accumulation_steps=2), data(6)
    model, opt = build()
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    net, stepper, scheduler = accelerator.prepare(model, opt, schedule)
    train(accelerator, net, opt, stepper, steps, scheduler=scheduler)
    other, plain_opt = build()
    plain(other, plain_opt, steps, every=2, scheduler=torch.optim.lr_scheduler.StepLR(plain_opt, 1, gamma=0.5))
    assert opt.param_groups[0]["lr"] == plain_opt.param_groups[0]["lr"] == 0.1 / 8
    assert_same(model, other)


def test_the_wrapper_hides_passes_and_does_not_step_in_the_ascent():
    accelerator, (x, y) = Accelerator(cpu=True), data(1)[0]
    model, opt = build()
    net, stepper = accelerator.prepare(model, opt)
    assert not hasattr(stepper, "passes")
    before = bits(model)
    with pytest.raises(RuntimeError, match="ascent pass"):
        for loss in opt.passes():
            accelerator.backward(loss(net(x), y))
            stepper.step()
    with pytest.raises(RuntimeError, match="ended the loop"):
        for loss in opt.passes():
            accelerator.backward(loss(net(x), y))
            stepper.zero_grad()
    assert bits(model) == before


def test_the_closure_is_the_other_way():
    accelerator, steps = Accelerator(cpu=True), data(3)
    model, opt = build(dropout=0.0)
    net, stepper = accelerator.prepare(model, opt)
    for x, y in steps:

        def closure():
            loss = opt.objective(net(x), y)
            accelerator.backward(loss)
            return loss

        stepper.step(closure)
        stepper.zero_grad()
    other, plain_opt = build(dropout=0.0)
    plain(other, plain_opt, steps)
    assert_same(model, other)


def test_saved_state_resumes_to_the_bit(tmp_path):
    accelerator, steps = Accelerator(cpu=True), data(7)
    model, opt = build(cadence=Every(3))
    net, stepper = accelerator.prepare(model, opt)
    train(accelerator, net, opt, stepper, steps[:4])
    accelerator.save_state(tmp_path)
    train(accelerator, net, opt, stepper, steps[4:])
    again, resumed = build(cadence=Every(3))
    nn.init.zeros_(again.head.weight)
    accelerator.free_memory()
    other, restepper = accelerator.prepare(again, resumed)
    accelerator.load_state(tmp_path)
    assert resumed.param_groups[0]["sharpness_steps"] == 4
    train(accelerator, other, resumed, restepper, steps[4:])
    assert_same(again, model)


def test_the_stepper_of_fp16():
    """Accelerate refuses fp16 on a CPU, so its parts are put together by hand: a scaler, and the stepper over it."""
    accelerator, steps = Accelerator(cpu=True), data(4)
    model, opt = build(dropout=0.0)
    net = accelerator.prepare(model)
    scaler = accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    stepper = AcceleratedOptimizer(opt, scaler=scaler)
    for number, (x, y) in enumerate(steps):
        for loss in opt.passes(accelerator.scaler):
            value = loss(net(x), y)
            accelerator.backward(value * torch.inf if number == 1 and not loss.is_ascent else value)
        stepper.step()
        stepper.zero_grad()
        assert stepper.step_was_skipped == (number == 1)
    assert opt.param_groups[0]["sharpness_steps"] == 3
    other, plain_opt = build(dropout=0.0)
    plain(other, plain_opt, [steps[0]])
    other(steps[1][0])
    plain(other, plain_opt, steps[2:])
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def two_workers(every):
    """Local passes, buffers of rank 0, averaged gradients."""
    models = [accelerate_worker.build() for _ in range(2)]
    opts = [BiSAM(torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), model=m, rho=0.5) for m in models]
    for i in range(4):
        for rank, (model, opt) in enumerate(zip(models, opts, strict=True)):
            x, y = accelerate_worker.batches(rank)[i]
            for loss in opt.passes():
                (loss(model(x), y) / every).backward()
        if i % every == every - 1:
            for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
                one.grad = other.grad = one.grad / 2 + other.grad / 2
            for opt in opts:
                opt.step()
                opt.zero_grad()
    return models[0]


def test_two_workers_climb_alone_and_step_together(tmp_path):
    """Started as people start them, ``torchrun --nproc_per_node 2``."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*torchrun, accelerate_worker.__file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for every in (1, 2):
        one, other = (torch.load(tmp_path / f"{every}-{rank}.pt") for rank in (0, 1))
        for name, value in two_workers(every).named_parameters():
            assert torch.equal(one[name], other[name]), name
            assert torch.equal(one[name], value), name


def test_the_page_runs():
    run_page("docs/engines/accelerate.md", blocks=2)


def test_the_example_learns(monkeypatch, capsys):
    run_example("accelerate_digits", monkeypatch, "--epochs", "4")
    assert float(re.search(r"test accuracy (\S+)", capsys.readouterr().out)[1]) > 0.9
