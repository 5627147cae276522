"""Fabric: the loop stays yours, so it must be the plain loop to the bit; ``opt`` below is what setup() returns."""

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning.fabric")

import torch
from lightning.fabric import Fabric
from torch import nn

import bisam
from bisam import BiSAM
from bisam.cadence import Every
from bisam.testing import Net, batches, bits
from tests.makers import MAKERS
from tests.pages import run_example, run_page

pytestmark = [pytest.mark.matrix("Fabric"), pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")]
ROOT = Path(__file__).parents[2]
FAMILY = pytest.mark.parametrize("method", MAKERS.values(), ids=bisam.METHODS)


def build(method=BiSAM, dropout=0.2, **kwargs):
    model = Net(dropout=dropout).float()
    return model, method(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.5, **kwargs)


def data(count, seed=1):
    return [(x.float(), y) for x, y in batches(count, seed)]


def train(fabric, net, opt, steps, clip=0.0):
    for i, (x, y) in enumerate(steps):
        torch.manual_seed(i)
        for loss in opt.passes():
            fabric.backward(loss(net(x), y))
        if clip:
            fabric.clip_gradients(net, opt, max_norm=clip)
        opt.step()
        opt.zero_grad()


def plain(model, opt, steps, clip=0.0, context=None):
    for i, (x, y) in enumerate(steps):
        torch.manual_seed(i)
        for loss in opt.passes():
            with context or torch.autocast("cpu", enabled=False):
                out = model(x)
            loss(out.float(), y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        opt.zero_grad()


def assert_same(one, other):
    assert [a == b for a, b in zip(bits(one), bits(other), strict=True)] == [True] * len(bits(one))
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


@FAMILY
@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_loop_is_the_plain_loop(method, clip, precision):
    fabric, steps = Fabric(accelerator="cpu", devices=1, precision=precision), data(4)
    model, raw = build(method)
    net, opt = fabric.setup(model, raw)
    train(fabric, net, opt, steps, clip)
    other, plain_opt = build(method)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else None
    plain(other, plain_opt, steps, clip, context)
    assert_same(model, other)
    assert raw.param_groups[0]["sharpness_steps"] == 4


def test_both_objects_are_the_optimizer():
    fabric, steps = Fabric(accelerator="cpu", devices=1), data(4)
    model, raw = build()
    net, opt = fabric.setup(model, raw)
    train(fabric, net, opt, steps[:2])
    for x, y in steps[2:]:
        torch.manual_seed(2 if x is steps[2][0] else 3)
        for loss in raw.passes():
            fabric.backward(loss(net(x), y))
        opt.step()
        opt.zero_grad()
    other, plain_opt = build()
    plain(other, plain_opt, steps)
    assert_same(model, other)
    assert isinstance(opt, BiSAM)
    assert opt.last.perturbed
    assert opt.last is raw.last


def test_a_loop_left_early_and_a_step_inside_it():
    fabric, (x, y) = Fabric(accelerator="cpu", devices=1), data(1)[0]
    model, raw = build()
    net, opt = fabric.setup(model, raw)
    before = bits(model)
    with pytest.raises(RuntimeError, match="ascent pass"):
        for loss in opt.passes():
            fabric.backward(loss(net(x), y))
            opt.step()
    loop = opt.passes()
    for loss in loop:
        fabric.backward(loss(net(x), y))
        if not loss.is_ascent:
            break
    assert bits(model) != before
    opt.zero_grad()
    assert bits(model) == before
    with pytest.raises(RuntimeError, match="without a call"):
        for _ in opt.passes():
            fabric.backward(net(x).sum())


def test_accumulation():
    fabric, steps = Fabric(accelerator="cpu", devices=1), data(4)
    model, raw = build(dropout=0.0)
    net, opt = fabric.setup(model, raw)
    for i, (x, y) in enumerate(steps):
        with fabric.no_backward_sync(net, enabled=i % 2 == 0):
            for loss in opt.passes():
                fabric.backward(loss(net(x), y) / 2)
        if i % 2:
            opt.step()
            opt.zero_grad()
    other, plain_opt = build(dropout=0.0)
    for i, (x, y) in enumerate(steps):
        for loss in plain_opt.passes():
            (loss(other(x), y) / 2).backward()
        if i % 2:
            plain_opt.step()
            plain_opt.zero_grad()
    assert_same(model, other)


def test_a_checkpoint_resumes_to_the_bit(tmp_path):
    fabric, steps = Fabric(accelerator="cpu", devices=1), data(7)
    model, raw = build(cadence=Every(3))
    net, opt = fabric.setup(model, raw)
    train(fabric, net, opt, steps[:4])
    fabric.save(tmp_path / "state.ckpt", {"model": net, "opt": opt})
    train(fabric, net, opt, steps[4:])
    again, raw = build(cadence=Every(3))
    nn.init.zeros_(again.head.weight)
    other, resumed = fabric.setup(again, raw)
    fabric.load(tmp_path / "state.ckpt", {"model": other, "opt": resumed})
    train(fabric, other, resumed, steps[4:])
    assert_same(again, model)
    assert raw.param_groups[0]["sharpness_steps"] == 7


def test_a_grad_scaler():
    """Fabric hands out no scaler on a CPU by itself, but it takes one."""
    from lightning.fabric.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    model, raw = build()
    net, opt = fabric.setup(model, raw)
    steps = data(3)
    for x, y in steps:
        torch.manual_seed(0)
        for loss in opt.passes(fabric.strategy.precision.scaler):
            fabric.backward(loss(net(x), y))
        fabric.clip_gradients(net, opt, max_norm=0.1)
        opt.step()
        opt.zero_grad()
    other, plain_opt = build()
    mine = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for x, y in steps:
        torch.manual_seed(0)
        for loss in plain_opt.passes(mine):
            with torch.autocast("cpu", torch.float16):
                out = other(x)
            mine.scale(loss(out.float(), y)).backward()
        mine.unscale_(plain_opt)
        nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        mine.step(plain_opt)
        mine.update()
        plain_opt.zero_grad()
    assert_same(model, other)


def work(fabric, path):
    model, raw = build(dropout=0.0)
    net, opt = fabric.setup(model, raw)
    raw.model = net  # the wrapped one: DDP is inside
    train(fabric, net, opt, data(4, seed=1 + fabric.global_rank))
    torch.save((model.state_dict(), opt.last.norm), path / f"{fabric.global_rank}.pt")


def test_two_workers_end_alike(tmp_path):
    from lightning.fabric.strategies import DDPStrategy

    strategy = DDPStrategy(start_method="fork", find_unused_parameters=True)
    Fabric(accelerator="cpu", devices=2, strategy=strategy).launch(work, tmp_path)
    (one, norm), (other, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, _ in Net().named_parameters():
        assert torch.equal(one[name], other[name]), name
    alone, raw = build(dropout=0.0)
    plain(alone, raw, data(4))
    assert not torch.equal(one["head.weight"], alone.head.weight)
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_the_page_runs():
    run_page("docs/engines/fabric.md", blocks=2)


def test_the_example_learns(monkeypatch, capsys):
    run_example("fabric_digits", monkeypatch, "--epochs", "4")
    assert float(re.search(r"test accuracy (\S+)", capsys.readouterr().out)[1]) > 0.9


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_several_base_optimizers(precision, tmp_path):
    """Saved by Fabric and resumed, they are those of the plain loop."""

    def two():
        model = Net(dropout=0.2).float()
        matrices = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim < 2]
        bases = [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.AdamW(rest, lr=0.01)]
        return model, BiSAM(bases, model=model, rho=0.5)

    fabric, steps = Fabric(accelerator="cpu", devices=1, precision=precision), data(4)
    model, raw = two()
    net, opt = fabric.setup(model, raw)
    train(fabric, net, opt, steps[:2])
    fabric.save(tmp_path / "state.ckpt", {"model": net, "opt": opt})
    model, raw = two()
    net, opt = fabric.setup(model, raw)
    fabric.load(tmp_path / "state.ckpt", {"model": net, "opt": opt})
    train(fabric, net, opt, steps[2:])
    other, plain_opt = two()
    context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else None
    plain(other, plain_opt, steps[:2], context=context)
    plain(other, plain_opt, steps[2:], context=context)
    assert_same(model, other)
    assert raw.param_groups[1]["sharpness_steps"] == 4
