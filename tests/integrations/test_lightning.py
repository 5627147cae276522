"""Lightning's Trainer: the same bits as the plain loop, every hook once a step, and errors where it could not be."""

import copy
import re
from pathlib import Path

import pytest

pytest.importorskip("lightning.pytorch")

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

import bisam
from bisam import ASAM, SAM, BiSAM, RhoScheduler, SharpnessAware
from bisam.cadence import Every, GradientCadence
from bisam.combine import Blend
from bisam.integrations.lightning import SharpnessAwareMixin, _check_strategy
from bisam.testing import Net, batches, bits
from tests.makers import MAKERS
from tests.pages import run_example, run_page

ROOT = Path(__file__).parents[2]
FAMILY = pytest.mark.parametrize("method", MAKERS.values(), ids=bisam.METHODS)
METHODS = pytest.mark.parametrize("method", [SAM, ASAM, BiSAM])
pytestmark = [
    pytest.mark.matrix("Lightning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def sharp(model, method=BiSAM, lr=0.1, **kwargs):
    return method(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), model=model, **{"rho": 0.5} | kwargs)


class Module(SharpnessAwareMixin, LightningModule):
    """What a user writes; ``net`` is the network of the battery, with BatchNorm and dropout."""

    def __init__(self, make=sharp):
        super().__init__()
        self.net = Net(dropout=0.2)
        self.make = make

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.objective(self.net(x.to(self.net.head.weight.dtype)), y)
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def on_train_batch_start(self, batch, batch_idx):
        torch.manual_seed(batch_idx)  # loaders draw from the same stream

    def configure_optimizers(self):
        return self.make(self)


def trainer(**kwargs):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "max_epochs": 1, "accelerator": "cpu", "devices": 1}
    return Trainer(**quiet | kwargs)


def loader(data):
    return DataLoader(data, batch_size=None)


def fit(module, data, **kwargs):
    run = trainer(**kwargs)
    run.fit(module, loader(data))
    return run


def plain(data, make=sharp, *, epochs=1, every=1, clip=lambda p: None, context=None, scaler=None, after=None):
    """Train with the loop of the guide."""
    model = Net(dropout=0.2)
    opt = make(model)
    after = after and after(opt)
    losses = []
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(epochs):
        for i, (x, y) in enumerate(data):
            torch.manual_seed(i)
            for loss in opt.passes(scaler):
                with context or torch.autocast("cpu", enabled=False):
                    value = loss(model(x.to(model.head.weight.dtype)), y)
                scaler.scale(value / every).backward()
            losses.append(loss.value)
            if (i + 1) % every == 0 or i + 1 == len(data):
                scaler.unscale_(opt)
                clip(model.parameters())
                scaler.step(opt)
                scaler.update()
                opt.zero_grad()
                for schedule in after or ():
                    schedule.step()
    return model, opt, losses


def assert_same(module, model):
    assert [a == b for a, b in zip(bits(module.net), bits(model), strict=True)] == [True] * len(bits(model))
    for one, other in zip(module.net.buffers(), model.buffers(), strict=True):
        assert torch.equal(one, other)


@FAMILY
def test_the_trainer_takes_the_steps_of_the_plain_loop(method):
    data, module = batches(5), Module(lambda m: sharp(m, method))
    run = fit(module, data, max_epochs=2)
    model, _, losses = plain(data, lambda m: sharp(m, method), epochs=2)
    assert_same(module, model)
    assert run.global_step == 10
    assert torch.equal(run.callback_metrics["loss_step"], losses[-1])
    torch.testing.assert_close(run.callback_metrics["loss_epoch"], torch.stack(losses[5:]).mean())
    assert run.optimizers[0].param_groups[0]["sharpness_steps"] == 10
    assert bits(model) != bits(plain(data, lambda m: sharp(m, method, rho=0.0), epochs=2)[0])


class Counts(Callback):
    """Counts what belongs to the step, and keeps the gradient that hooks see."""

    def __init__(self):
        self.calls, self.losses, self.after, self.before_step = [], [], [], []

    def on_before_zero_grad(self, *args):
        self.calls.append("zero_grad")

    def on_before_backward(self, trainer, module, loss):
        self.calls.append("before_backward")

    def on_after_backward(self, trainer, module):
        self.calls.append("after_backward")
        self.after.append(module.net.head.weight.grad.clone())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.calls.append("before_step")
        self.before_step.append(module.net.head.weight.grad.clone())
        assert isinstance(optimizer, SharpnessAware)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"])


def test_every_hook_runs_once_a_step_and_belongs_to_the_last_pass():
    data, counts = batches(3), Counts()
    fit(Module(), data, callbacks=[counts])
    assert counts.calls == ["zero_grad", "before_backward", "after_backward", "before_step"] * 3
    _, _, losses = plain(data)
    assert all(torch.equal(a, b) for a, b in zip(counts.losses, losses, strict=True))
    model = Net(dropout=0.2)
    opt = sharp(model)
    torch.manual_seed(0)
    for loss in opt.passes():
        loss(model(data[0][0]), data[0][1]).backward()
    assert torch.equal(counts.after[0], model.head.weight.grad)
    assert torch.equal(counts.before_step[0], model.head.weight.grad)


def test_schedulers():
    def schedules(opt):
        return [torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5), RhoScheduler(opt, rho_min=0.1)]

    class Scheduled(Module):
        def configure_optimizers(self):
            opt = sharp(self)
            return [opt], [{"scheduler": s, "interval": "step"} for s in schedules(opt)]

    data, module = batches(5), Scheduled()
    run = fit(module, data)
    model, opt, _ = plain(data, after=schedules)
    assert_same(module, model)
    assert run.optimizers[0].param_groups[0]["lr"] == opt.param_groups[0]["lr"] < 0.1
    assert run.optimizers[0].param_groups[0]["rho"] == opt.param_groups[0]["rho"] < 0.5


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_of_the_final_gradient(algorithm):
    clip = {
        "norm": lambda p: nn.utils.clip_grad_norm_(p, 0.05),
        "value": lambda p: nn.utils.clip_grad_value_(p, 0.005),
    }[algorithm]
    data, module = batches(4), Module()
    fit(module, data, gradient_clip_val={"norm": 0.05, "value": 0.005}[algorithm], gradient_clip_algorithm=algorithm)
    assert_same(module, plain(data, clip=clip)[0])
    assert bits(module.net) != bits(plain(data)[0])


@METHODS
def test_accumulation_perturbs_every_micro_batch(method):
    """Five batches by two: Lightning steps after 2, 4 and, with half a window, 5."""
    data, module = batches(5), Module(lambda m: sharp(m, method))
    run = fit(module, data, accumulate_grad_batches=2, max_epochs=2)
    assert_same(module, plain(data, lambda m: sharp(m, method), epochs=2, every=2)[0])
    assert run.global_step == 6


def test_combine_sees_no_stale_gradients():
    data, module = batches(5), Module(lambda m: sharp(m, SAM, combine=Blend(0.7)))
    fit(module, data, accumulate_grad_batches=2)
    assert_same(module, plain(data, lambda m: sharp(m, SAM, combine=Blend(0.7)), every=2)[0])


class Moody(GradientCadence):
    """Ends every other step after the pass at w, where the optimizer knows such cadences."""

    def __call__(self, step):
        return True

    def decide(self, step, squared_norm, moments):
        return step % 2 == 0, [1.0]


@pytest.mark.parametrize("every", [1, 2])
def test_a_cadence_that_ends_the_step_after_its_first_pass(every):
    def make(model):
        return sharp(model, SAM, cadence=Moody())

    data, module, counts = batches(5), Module(make), Counts()
    run = fit(module, data, callbacks=[counts], accumulate_grad_batches=every)
    model, _, losses = plain(data, make, every=every)
    assert_same(module, model)
    torch.testing.assert_close(run.callback_metrics["loss_epoch"], torch.stack(losses).mean())
    assert counts.calls.count("after_backward") == 5


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path):
    """With a cadence, so that the count of steps matters, and momentum, so that the base's state does."""

    def make(model):
        return sharp(model, cadence=Every(3))

    data = [batches(4, seed=s) for s in (1, 2)]

    class Epochs(Module):
        def train_dataloader(self):
            torch.manual_seed(10 + self.current_epoch)
            return loader(data[self.current_epoch])

    def run(module, **kwargs):
        done = trainer(reload_dataloaders_every_n_epochs=1, **kwargs)
        done.fit(module, ckpt_path=ckpt)
        return done

    ckpt = None
    whole = Epochs(make)
    run(whole, max_epochs=2)
    half, keep = Epochs(make), ModelCheckpoint(tmp_path, save_last=True)
    run(half, max_epochs=1, callbacks=[keep], enable_checkpointing=True)
    ckpt = keep.last_model_path
    rest = Epochs(make)
    nn.init.zeros_(rest.net.head.weight)
    finished = run(rest, max_epochs=2, callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    assert_same(rest, whole.net)
    assert bits(half.net) != bits(whole.net)
    assert finished.global_step == 8
    assert finished.optimizers[0].param_groups[0]["sharpness_steps"] == 8


def test_bfloat16_autocast():
    def make(model):
        return sharp(model.float())

    data, module = batches(4), Module(make)
    fit(module, data, precision="bf16-mixed")
    model = plain(data, make, context=torch.autocast("cpu", torch.bfloat16, cache_enabled=False))[0]
    assert_same(module, model)
    assert bits(model) != bits(plain(data, make)[0])


def test_no_backward_runs_under_autocast():
    seen = []

    class Looks(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            assert torch.is_autocast_enabled("cpu")
            loss.register_hook(lambda grad: seen.append(torch.is_autocast_enabled("cpu")))
            return loss

    fit(Looks(lambda m: sharp(m.float())), batches(1), precision="bf16-mixed")
    assert seen == [False, False]


@pytest.mark.parametrize("every", [1, 2])
def test_a_grad_scaler(every):
    def make(model):
        return sharp(model.float())

    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    data, module = batches(5), Module(make)
    fit(
        module,
        data,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler())],
        gradient_clip_val=0.1,
        accumulate_grad_batches=every,
    )
    model = plain(
        data,
        make,
        every=every,
        context=torch.autocast("cpu", torch.float16, cache_enabled=False),
        scaler=scaler(),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 0.1),
    )[0]
    assert_same(module, model)


def test_an_overflow_skips_the_step():
    class Overflows(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1 if self.objective.is_ascent else torch.inf)

    module, scaler = Overflows(lambda m: sharp(m.float())), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = bits(module.net.float())
    fit(module, batches(2), plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    assert bits(module.net) == before
    assert scaler.get_scale() == 1.0


def test_the_step_of_a_subclass_and_a_dict():
    class Sub(Module):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "extra": batch_idx}

    data, module = batches(3), Sub()
    fit(module, data)
    assert_same(module, plain(data)[0])


def test_a_training_step_that_takes_the_batch_alone():
    class Alone(Module):
        def training_step(self, batch):
            return self.objective(self.net(batch[0]), batch[1])

    data, module = batches(3), Alone()
    fit(module, data)
    assert_same(module, plain(data)[0])


def test_an_optimizer_step_of_the_users_own():
    """The learning-rate warm-up of Lightning's documentation hands the closure to the optimizer."""

    class WarmUp(Module):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (batch_idx + 1) / 4
            optimizer.step(closure=optimizer_closure)

    data, module = batches(4), WarmUp()
    fit(module, data)
    model = Net(dropout=0.2)
    opt = sharp(model)
    for i, (x, y) in enumerate(data):
        torch.manual_seed(i)
        opt.param_groups[0]["lr"] = 0.1 * (i + 1) / 4
        for loss in opt.passes():
            loss(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    assert_same(module, model)


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.")
@pytest.mark.parametrize("every", [1, 2])
def test_a_skipped_batch_leaves_no_trace(every):
    class Skips(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else loss

    data, module = batches(4), Skips(lambda m: SAM(torch.optim.SGD(m.parameters(), lr=0.1), model=m, rho=0.5))
    module.net.dropout.p = 0.0
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            seen.append(bits(module.net))

    fit(module, data, callbacks=[Watch()], accumulate_grad_batches=every)
    model = Net()
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5)
    for i, (x, y) in enumerate(data):
        if i != 1:
            for loss in opt.passes():
                (loss(model(x), y) / every).backward()
        else:
            model(x)  # its buffers stay as its one forward pass left them
            opt.state_dict()
        if (i + 1) % every == 0:
            opt.step()
            opt.zero_grad()
    assert bits(module.net) == bits(model)
    if every == 1:
        assert seen[0] == seen[1] != seen[2]


# -- manual optimization ---------------------------------------------------------------------------------------------


def manual_loop(self, batch, batch_idx):
    x, y = batch
    opt = self.optimizers()
    for loss in opt.passes():
        self.manual_backward(loss(self.net(x), y))
    self.log("loss", loss.value)
    opt.step()
    opt.zero_grad()


def manual_closure(self, batch, batch_idx):
    x, y = batch
    opt = self.optimizers()

    def closure():
        loss = opt.objective(self.net(x), y)
        self.manual_backward(loss)
        return loss

    opt.step(closure)
    opt.zero_grad()


class Mixed(SharpnessAwareMixin, LightningModule):
    training_step = manual_loop


class Bare(LightningModule):
    training_step = manual_closure


@pytest.mark.parametrize("base", [Mixed, Bare])
def test_manual_optimization(base):
    class Manual(base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = Net(dropout=0.2)

        def on_train_batch_start(self, batch, batch_idx):
            torch.manual_seed(batch_idx)

        def configure_optimizers(self):
            return sharp(self)

    data, module = batches(4), Manual()
    run = fit(module, data)
    assert_same(module, plain(data)[0])
    assert run.global_step == 4


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgets", ["ascent", "descent"])
def test_a_step_that_forgets_the_objective_raises_and_gives_the_weights_back(forgets):
    class Forgets(Module):
        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            mine = self.objective.is_ascent == (forgets == "ascent")
            return nn.functional.cross_entropy(logits, batch[1]) if mine else self.objective(logits, batch[1])

    module = Forgets()
    before = bits(module.net)
    with pytest.raises(RuntimeError, match=f"without a call of its {forgets} objective"):
        fit(module, batches(2))
    assert bits(module.net) == before


@pytest.mark.parametrize("where", ["ascent", "descent", "on_before_backward", "backward"])
def test_a_checkpoint_of_an_interrupted_step_holds_w(where, tmp_path):
    class Fails(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if where in ("ascent", "descent") and self.objective.is_ascent == (where == "ascent"):
                raise KeyError("stop")
            if where == "backward" and not self.objective.is_ascent:
                loss.register_hook(self.stop)
            return loss

        def on_before_backward(self, loss):
            if where == "on_before_backward":
                self.stop()

        def stop(self, *args):
            assert bits(self.net) != before
            raise KeyError("stop")

    class Save(Callback):
        def on_exception(self, trainer, module, exception):
            trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)

    module = Fails()
    before = bits(module.net)
    with pytest.raises(KeyError, match="stop"):
        fit(module, batches(1), callbacks=[Save()])
    saved = Net(dropout=0.2)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    saved.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
    assert bits(saved) == before
    assert bits(module.net) == before


def test_hooks_that_forget_super_are_told():
    class Start(Module):
        def on_train_start(self):
            pass

    class Backward(Module):
        def backward(self, loss):
            loss.backward()

    class ZeroGrad(Module):
        def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
            optimizer.zero_grad()

    for module, match in [(Start, "on_train_start"), (Backward, r"super\(\).backward"), (ZeroGrad, "zero_grad")]:
        net = module()
        before = bits(net.net)
        for every in (1, 2):
            with pytest.raises(RuntimeError, match=match):
                fit(net, batches(3), accumulate_grad_batches=every)
        assert bits(net.net) == before, module


def test_what_would_be_wrong_is_refused():
    with pytest.raises(TypeError, match="mixin comes first"):
        type("Late", (LightningModule, SharpnessAwareMixin), {})
    with pytest.raises(TypeError, match=r"take \(batch, batch_idx\)"):
        type("Iterates", (Module,), {"training_step": lambda self, dataloader_iter: None})
    with pytest.raises(TypeError, match="SAM with rho=0"):
        fit(Module(lambda m: torch.optim.SGD(m.parameters(), lr=0.1)), batches(1))
    with pytest.raises(RuntimeError, match="multiple optimizers is only supported with manual"):
        fit(Module(lambda m: [sharp(m), sharp(m)]), batches(1))
    with pytest.raises(RuntimeError, match="inside training_step"):
        _ = Module().objective
    with pytest.raises(RuntimeError, match="use strategy='ddp' or one device"):
        _check_strategy(nn.Sequential(Module()), Module())
    with pytest.raises(RuntimeError, match=r"self.net = torch.compile\(net\)"):
        fit(torch.compile(Module()), batches(1))
    with pytest.raises(TypeError, match=r"training_step\(\) returned float"):
        fit(type("Floats", (Module,), {"training_step": lambda self, batch, i: 1.0})(), batches(1))


def test_a_module_can_be_copied_and_fitted_again():
    data, module = batches(3), Module()
    fit(module, data)
    twin = copy.deepcopy(module)
    assert bits(twin.net) == bits(module.net)
    fit(module, data)
    fit(twin, data)
    assert_same(module, twin.net)


def test_validation_in_between_changes_nothing():
    class Validated(Module):
        def validation_step(self, batch, batch_idx):
            self.log("valid", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    data, module = batches(4), Validated()
    run = trainer(val_check_interval=2, num_sanity_val_steps=1)
    run.fit(module, loader(data), loader(data[:2]))
    assert_same(module, plain(data)[0])
    assert "valid" in run.callback_metrics


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_older_package_name_works():
    old = pytest.importorskip("pytorch_lightning")
    space = {k: v for k, v in vars(Module).items() if k not in ("__dict__", "__weakref__", "__init__")}

    def init(self):
        old.LightningModule.__init__(self)
        self.net, self.make = Net(dropout=0.2), sharp

    module = type("Old", (SharpnessAwareMixin, old.LightningModule), space | {"__init__": init})()
    run = old.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    data = batches(4)
    run.fit(module, loader(data))
    assert_same(module, plain(data)[0])


# -- two workers -----------------------------------------------------------------------------------------------------


class Worker(Module):
    """Each rank has its own batches, and writes what it ends with."""

    def __init__(self, path, make=sharp):
        super().__init__(make)
        self.net = Net()
        self.path = path

    def train_dataloader(self):
        return loader(batches(5, seed=1 + self.global_rank))

    def on_train_end(self):
        assert isinstance(self.trainer.optimizers[0].model, nn.parallel.DistributedDataParallel)
        torch.save((self.net.state_dict(), self.trainer.global_step), self.path / f"{self.global_rank}.pt")
        super().on_train_end()


def two_workers(every, make=sharp):
    """What the ranks should end with: local passes, buffers of rank 0, averaged gradients."""
    models = [Net(), Net()]
    opts = [make(model) for model in models]
    data = [batches(5, seed=1), batches(5, seed=2)]
    for i in range(5):
        for model, opt, (x, y) in zip(models, opts, (d[i] for d in data), strict=True):
            for loss in opt.passes():
                (loss(model(x), y) / every).backward()
        if i % every == every - 1 or i == 4:
            for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
                if one.grad is not None:
                    one.grad = other.grad = one.grad / 2 + other.grad / 2
            for opt in opts:
                opt.step()
                opt.zero_grad()
    return models[0]


@pytest.mark.parametrize("every", [1, 2])
def test_two_workers_climb_alone_and_step_together(every, tmp_path):
    run = trainer(
        strategy="ddp_fork_find_unused_parameters_true",
        devices=2,
        accumulate_grad_batches=every,
        use_distributed_sampler=False,
    )
    run.fit(Worker(tmp_path))
    (one, steps), (other, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert steps == (5 if every == 1 else 3)
    expected = two_workers(every)
    for name, value in expected.named_parameters():
        assert torch.equal(one[name], other[name]), name
        assert torch.equal(one[name], value), name


@pytest.mark.parametrize("cadence", [Every(1), Moody()])
def test_two_workers_agree_on_combined_gradients(cadence, tmp_path):
    run = trainer(strategy="ddp_fork_find_unused_parameters_true", devices=2, use_distributed_sampler=False)
    run.fit(Worker(tmp_path, lambda m: sharp(m, SAM, combine=Blend(0.7), cadence=cadence)))
    (one, _), (other, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, _ in Net().named_parameters():
        assert torch.equal(one[name], other[name]), name


def test_a_static_graph_is_refused(tmp_path):
    with pytest.raises(Exception, match="static_graph=False"):
        trainer(strategy=DDPStrategy(start_method="fork", static_graph=True), devices=2).fit(Worker(tmp_path))


def test_the_page_runs():
    run_page("docs/engines/lightning.md", blocks=2)


def test_the_example_learns(monkeypatch, capsys):
    run_example("lightning_digits", monkeypatch, "--epochs", "4")
    assert float(re.search(r"test accuracy (\S+)", capsys.readouterr().out)[1]) > 0.9


# -- several base optimizers, and the mixin forgotten ------------------------------------------------------------------


def two(module, method=BiSAM, **kwargs):
    """SGD for the matrices, AdamW for the rest."""
    matrices = [p for p in module.parameters() if p.ndim == 2]
    rest = [p for p in module.parameters() if p.ndim < 2]
    bases = [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.AdamW(rest, lr=0.01)]
    return method(bases, model=module, **{"rho": 0.5} | kwargs)


@pytest.mark.parametrize("every", [1, 2])
def test_several_base_optimizers(tmp_path, every):
    """Fitted, saved and resumed as in the plain loop."""
    data = batches(4)
    module, (model, _, _) = Module(two), plain(data, two, epochs=2, every=every)
    keep = {"callbacks": [ModelCheckpoint(tmp_path, save_last=True)], "enable_checkpointing": True}
    fit(module, data, accumulate_grad_batches=every, **keep)
    resumed = Module(two)
    trainer(max_epochs=2, accumulate_grad_batches=every, **keep).fit(
        resumed, loader(data), ckpt_path=tmp_path / "last.ckpt"
    )
    assert_same(resumed, model)


class Forgotten(LightningModule):
    """A module that calls a loss of its own, as any does before the mixin is added."""

    def __init__(self, method):
        super().__init__()
        self.net, self.method = Net(), method

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return sharp(self, self.method)


@pytest.mark.parametrize("method", [SAM, BiSAM, bisam.AESAM])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.filterwarnings("ignore:.*running statistics")
def test_a_module_without_the_mixin_is_told_which_class_to_add(method, every):
    module = Forgotten(method)
    before = bits(module)
    with pytest.raises(RuntimeError, match=r"class Net\(SharpnessAwareMixin, LightningModule\)"):
        fit(module, batches(4), accumulate_grad_batches=every)
    assert bits(module) == before


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.")
def test_a_batch_that_is_skipped_is_no_loop_that_was_left():
    """training_step() may return None."""

    class Skips(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    data = batches(4)
    module = Skips()
    fit(module, data)
    model = Net(dropout=0.2)
    opt = sharp(model)
    for i in (0, 2):
        torch.manual_seed(i)
        for loss in opt.passes():
            loss(model(data[i][0]), data[i][1]).backward()
        opt.step()
        opt.zero_grad()
    for ours, theirs in zip(module.net.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_loss_at_w_for_the_log():
    module, seen = Module(), []

    class Watch(Callback):
        def on_train_batch_end(self, run, module, outputs, batch, batch_idx):
            seen.append(run.optimizers[0].last.loss.item())

    data = batches(3)
    fit(module, data, callbacks=[Watch()])
    model = Net(dropout=0.2)
    opt = sharp(model)
    for i, (x, y) in enumerate(data):
        torch.manual_seed(i)
        expected = nn.functional.cross_entropy(copy.deepcopy(model)(x), y).item()
        assert seen[i] == pytest.approx(expected, rel=1e-12)
        torch.manual_seed(i)
        for loss in opt.passes():
            loss(model(x), y).backward()
        opt.step()
        opt.zero_grad()
