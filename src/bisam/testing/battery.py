"""The checks of the battery: what must be true of every method, and what a fast one does besides."""

import contextlib
import copy
import io
import pickle
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bisam._vectors.host import as_on_accelerator
from bisam._vectors.memory import PREFIX
from bisam.cadence import GradientCadence
from bisam.optimizer import SharpnessAware

from .group_radii import check_group_radii, split_groups
from .leaving import check_early_exit, check_interrupted_loops
from .models import Make, Net, batches, bits, count_around_passes, run_steps
from .scale import check_gradient_range, check_scale

__all__ = ["BATTERY", "CONTRACT", "SPEED"]


def check_restores_weights(make: Make) -> None:
    """After the loop every weight is back bit for bit, in its old storage; buffers are as the first pass left them."""
    model, (x, y) = Net(), batches(1)[0]
    plain = copy.deepcopy(model)
    plain(x)
    before, pointers = bits(model), _pointers(model)
    for objective in make(model).passes():
        objective(model(x), y).backward()
    assert bits(model) == before, "weights differ after the loop"
    assert _pointers(model) == pointers, "a weight or buffer changed its storage"
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), f"buffer {name} is not as the first pass left it"


def check_additive(make: Make) -> None:
    """The gradient is gained: what was accumulated before is still in it."""
    x, y = batches(1)[0]
    alone, added = Net(), Net()
    carried = torch.randn_like(added.head.weight)
    added.head.weight.grad = carried.clone()
    for model in (alone, added):
        for objective in make(model).passes():
            objective(model(x), y).backward()
    assert alone.head.weight.grad is not None
    _same(added.head.weight.grad, carried + alone.head.weight.grad, "gradient with one carried before")
    _same(added.first.weight.grad, alone.first.weight.grad, "gradient without")


def check_zero_radius(make: Make) -> None:
    """With rho = 0 it is the base optimizer, bit for bit."""
    model, plain, data = Net(), Net(), batches(5)
    opt = make(model)
    for group in opt.param_groups:
        group["rho"] = 0.0
    base = make(plain).base
    run_steps(model, opt, data)
    for x, y in data:
        nn.functional.cross_entropy(plain(x), y).backward()
        base.step()
        base.zero_grad()
    assert bits(model) == bits(plain), "rho = 0 differs from the base optimizer"


def check_resume(make: Make) -> None:
    """Stop and resume at every step: weights are those of the run without a stop, to the bit."""
    data = batches(6)
    whole = Net()
    run_steps(whole, make(whole), data)
    for stop in range(len(data) + 1):
        first, second = Net(), Net(seed=9)
        opt = make(first)
        run_steps(first, opt, data[:stop])
        assert opt.memory.step == stop, f"after {stop} steps {opt.memory.step} are counted"
        file = io.BytesIO()
        torch.save({"model": first.state_dict(), "opt": opt.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        resumed = make(second)
        second.load_state_dict(saved["model"])
        resumed.load_state_dict(saved["opt"])
        assert resumed.param_groups is resumed.base.param_groups, "wrapper and base no longer share param_groups"
        run_steps(second, resumed, data[stop:])
        assert bits(second) == bits(whole), f"weights differ after resuming at step {stop}"


def check_plain_checkpoint(make: Make) -> None:
    """A checkpoint of the plain base optimizer loads; rho stays as it was made."""
    model, data = Net(), batches(2)
    opt = make(model)
    for x, y in data:
        nn.functional.cross_entropy(model(x), y).backward()
        opt.base.step()
        opt.base.zero_grad()
    state = opt.base.state_dict()
    for group in state["param_groups"]:
        for key in [key for key in group if key == "rho" or key.startswith("sharpness_")]:
            del group[key]
    radii = [group["rho"] for group in opt.param_groups]
    opt.load_state_dict(state)
    assert [group["rho"] for group in opt.param_groups] == radii, "rho was lost"
    run_steps(model, opt, data)


def check_copies(make: Make) -> None:
    """``deepcopy`` and ``pickle`` give an optimizer of their own that takes the same steps, also under a scheduler."""
    model, data = Net(), batches(4)
    opt = make(model)
    torch.optim.lr_scheduler.StepLR(opt, 10)  # patches opt.step
    run_steps(model, opt, data[:2])
    for twin_model, twin in (copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))):
        before = bits(model)
        run_steps(twin_model, twin, data[2:])
        assert bits(model) == before, "the copy drives the original"
        fresh_model, fresh = copy.deepcopy((model, opt))
        run_steps(fresh_model, fresh, data[2:])
        assert bits(twin_model) == bits(fresh_model), "the copy takes other steps"


def check_odd_gradients(make: Make) -> None:
    """Missing, zero and non-finite ascent gradients never make a NaN; the last pass is at w, and later steps climb."""
    x, y = batches(1)[0]
    healthy = Net()
    climbs = _climbs(healthy, make(healthy))
    for factor in (0.0, torch.inf, torch.nan):
        model = Net()
        opt, before = make(model), bits(model)
        for objective in opt.passes():
            if not objective.is_ascent:
                assert bits(model) == before, f"an ascent gradient times {factor} has moved the weights"
            loss = objective(model(x), y)
            (loss * factor if objective.is_ascent else loss).backward()
        assert not opt.last.perturbed
        assert opt.last.norm == 0
        opt.step()
        opt.zero_grad()
        assert all(bool(p.isfinite().all()) for p in model.parameters()), "a weight is not finite"
        kept = [value for own in opt.state_dict()["state"].values() for name, value in own.items() if PREFIX in name]
        assert all(bool(value.isfinite().all()) for value in kept), f"an ascent gradient times {factor} is remembered"
        assert _climbs(model, opt) == climbs, f"no step climbs any more after an ascent gradient times {factor}"
    model = Net()
    opt, before = make(model), bits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one that says so
        for objective in opt.passes():
            objective(model(x), y)
    opt.step()
    assert bits(model) == before, "no gradient at all, and yet a weight moved"
    for only in (0, 1):  # a parameter that has a gradient in one of the passes
        model = Net()
        opt, before = make(model), bits(model)
        for objective in opt.passes():
            extra = model.unused.sum() if objective.index == only else 0.0
            (objective(model(x), y) + extra).backward()
        assert bits(model) == before, f"a parameter with a gradient in pass {only} alone was not restored"


def check_scheduler(make: Make) -> None:
    """A learning-rate scheduler attaches without a warning, moves the rate that is read, and keeps doing so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, data = Net(), batches(3)
        opt = make(model)
        schedule = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
        rate = opt.param_groups[0]["lr"]
        for batch in data:
            run_steps(model, opt, [batch])
            schedule.step()
        assert opt.base.param_groups[0]["lr"] == rate / 8
        opt.load_state_dict(opt.state_dict())
        schedule.step()
        assert opt.base.param_groups[0]["lr"] == rate / 16, (
            "after load_state_dict the scheduler moves a rate nobody reads"
        )


def check_autocast(make: Make) -> None:
    """One autocast region around a step, or around two micro-batches, gives the gradient of a region for each pass.

    Autocast keeps low-precision copies of float32 weights until the region ends. Copies that were made at w would hide
    the perturbation, and copies made at w + eps would outlive it.
    """
    gradients = []
    for whole in (contextlib.nullcontext, _bfloat16):
        model = Net().float()
        opt = make(model)
        with whole():
            for x, y in batches(2):
                for objective in opt.passes():
                    with _bfloat16():
                        loss = objective(model(x.float()), y)
                    loss.backward()
        gradients.append([param.grad for param in model.parameters() if param.grad is not None])
    for apart, together in zip(*gradients, strict=True):
        assert torch.equal(apart, together), "one autocast region around the passes gives another gradient"


def check_constant_operations(make: Make) -> None:
    """Work between and after the passes is dispatched in as many operations for 1000 parameters as for 10.

    That holds from the second step on; what a method remembers is furnished in the first.
    """
    for way in (contextlib.nullcontext, as_on_accelerator):
        counts = []
        for layers in (2, 250):
            model = nn.Sequential(*[part for _ in range(layers) for part in (nn.Linear(3, 3), nn.LayerNorm(3))])
            opt, x, y = make(model), torch.randn(2, 3), torch.tensor([0, 1])
            with way():
                _operations(model, opt, x, y)
                counted = [_operations(model, opt, x, y)]
                opt.step()
                counted.append(_operations(model, opt, x, y))  # the next step, maybe with other passes
            counts.append([[len(names) for names in step] for step in counted])
        few, many = counts
        assert sum(few[0]) > 0, "nothing was counted"
        for step, other in zip(few, many, strict=True):
            if len(step) == len(other):  # an adaptive cadence may want other passes for the other model
                assert step == other, f"operations around the passes grow with the parameters: {counts}"


def check_where_it_is_decided(make: Make) -> None:
    """Steps are the same whether the host reads their norms, as on the CPU, or the device decides, as on a GPU.

    So they are for gradients of 1e-30, which the host leaves to the careful way, and where there is no way up.
    """
    trained = []
    for way in (contextlib.nullcontext, as_on_accelerator):
        model, data = Net(), batches(6)
        opt = make(model)
        groups = len(opt.param_groups)
        split_groups(opt)
        for group in opt.param_groups[groups:]:
            group["rho"] *= 2
        with way():
            run_steps(model, opt, data[:3])
            for (x, y), factor in zip(data[3:], (1e-30, 0.0, 1.0), strict=True):
                for objective in opt.passes(grad_scale=factor or 1.0):
                    (objective(model(x), y) * factor).backward()
                opt.step()
                opt.zero_grad()
        trained.append(model)
    for (name, ours), theirs in zip(trained[0].named_parameters(), trained[1].parameters(), strict=True):
        _same(ours, theirs, f"{name}, decided by the host and by the device")


def check_no_synchronisation(make: Make) -> None:
    """Nothing in a step but the loop's body reads a value back from an accelerator.

    An adaptive cadence reads one number.
    """
    model, (x, y) = Net(), batches(1)[0]
    opt = make(model)
    with as_on_accelerator():
        gaps = _operations(model, opt, x, y)
    reading = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item"}
    read = [name for names in gaps for name in names if name in reading]
    allowed = 1 if isinstance(opt.estimator.cadence, GradientCadence) else 0
    assert len(read) <= allowed, f"the host waits for the device: {read}"


def _operations(model: nn.Module, opt: SharpnessAware, x: Tensor, y: Tensor) -> list[list[str]]:
    """Names of the operations before, between and after the passes of one loop."""
    return [seen.names for seen in count_around_passes(model, opt, x, y)]


def _bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def _climbs(model: nn.Module, opt: SharpnessAware) -> bool:
    """Train on until a step perturbs; whether one did."""
    for batch in batches(40, seed=2):
        run_steps(model, opt, [batch])
        if opt.last.perturbed:
            return True
    return False


def _pointers(model: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]


def _same(ours: Tensor | None, theirs: Tensor | None, what: str) -> None:
    assert ours is not None, f"{what}: missing"
    assert theirs is not None, f"{what}: missing in the reference"
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14, msg=lambda m: f"{what}: {m}")


#: What must be true of every sharpness-aware optimizer.
CONTRACT: tuple[Callable[[Make], None], ...] = (
    check_restores_weights,
    check_early_exit,
    check_interrupted_loops,
    check_additive,
    check_zero_radius,
    check_group_radii,
    check_resume,
    check_plain_checkpoint,
    check_copies,
    check_odd_gradients,
    check_scheduler,
    check_scale,
    check_gradient_range,
    check_autocast,
)

#: What a fast one does besides. A choice of your own may leave these out.
SPEED: tuple[Callable[[Make], None], ...] = (
    check_constant_operations,
    check_no_synchronisation,
    check_where_it_is_decided,
)

#: Both.
BATTERY = (*CONTRACT, *SPEED)
