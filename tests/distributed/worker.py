"""One of two processes: runs every scenario of this file, and writes what it saw to a file.

``python -m tests.distributed.worker RANK RENDEZVOUS RESULT``; each scenario returns what the test is to compare.
"""

import contextlib
import sys
import traceback
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import bisam
from bisam import METHODS, SAM, LowerBoundLoss
from bisam.testing import Net, batches
from tests.makers import MAKERS

THIRD = {"gsam", "wsam", "looksam", "aesam", "stablesam"}
SAVED = ["sam", "vasso", "looksam", "ssam", "aesam"]  # one of each kind of memory
SETTINGS = {
    "plain": {},
    "bucket-views": {"gradient_as_bucket_view": True},
    "static": {"static_graph": True},
    "static-views": {"static_graph": True, "gradient_as_bucket_view": True},
}


def mlp(seed=0):
    """Odd sizes, so that shards are uneven, and a layer norm, so that SAM-ON has something to perturb."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 4)
    ).double()


def half(rank, x, y):
    return x.chunk(2)[rank], y.chunk(2)[rank]


def flat(tensors):
    return torch.cat([getattr(t, "full_tensor", lambda t=t: t)().detach().flatten() for t in tensors])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def build(name, model, wrapped, foreign=False, **choices):
    if foreign:
        choices |= {"ascent": LowerBoundLoss(), "third_pass": name in THIRD}
    return MAKERS[name](sgd(model), model=wrapped, **choices)


def train(opt, model, rank, steps=6, start=0, hold=None):
    """Each rank its half of the batch; with ``hold``, two micro-batches, the first one under that context."""
    for x, y in batches(steps + start)[start:]:
        x, y = half(rank, x, y)
        parts = [(x, y)] if hold is None else list(zip(x.chunk(2), y.chunk(2), strict=True))
        for number, (xs, ys) in enumerate(parts):
            with hold() if hold is not None and number == 0 else contextlib.nullcontext():
                for loss in opt.passes():
                    (loss(model(xs), ys) / len(parts)).backward()
        opt.step()
        opt.zero_grad()


def ddp_local(rank):
    return {name: _ddp(rank, settings) for name, settings in SETTINGS.items()}


def ddp_sync(rank):
    return {name: _ddp(rank, settings, sync_ascent=True) for name, settings in SETTINGS.items()}


def _ddp(rank, settings, hold=False, **choices):
    model = mlp()
    wrapped = DistributedDataParallel(model, **settings)
    opt = SAM(sgd(model), model=wrapped, rho=0.5, **choices)
    train(opt, wrapped, rank, hold=wrapped.no_sync if hold else None)
    return flat(model.parameters())


def ddp_accumulation(rank):
    cases = {name: s for name, s in SETTINGS.items() if "static" not in name}  # its first pass must be averaged
    return {(name, sync): _ddp(rank, s, True, sync_ascent=sync) for name, s in cases.items() for sync in (False, True)}


def ddp_batchnorm(rank):
    """A net with BatchNorm, a frozen, a shared and an unused parameter."""
    model = Net()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    opt = bisam.BiSAM(sgd(model), model=wrapped, rho=0.5)
    train(opt, wrapped, rank)
    wrapped(batches(1)[0][0])  # DDP evens out buffers when it runs forward
    return flat([*model.parameters(), *model.buffers()])


def ddp_methods(rank):
    seen = {}
    for name in METHODS:
        for foreign in (False, True):
            model = mlp()
            wrapped = DistributedDataParallel(model)
            opt = build(name, model, wrapped, foreign)
            train(opt, wrapped, rank)
            memory = [v for own in opt.state_dict()["state"].values() for k, v in own.items() if "sharpness" in k]
            seen[name, foreign] = flat([*model.parameters(), *memory])
    return seen


def ddp_refusals(rank):
    said = {}
    for name in sorted(THIRD):
        wrapped = DistributedDataParallel(mlp())
        opt = build(name, wrapped.module, wrapped)
        try:
            with wrapped.no_sync():
                next(opt.passes())
        except RuntimeError as error:
            said[name] = str(error)
    return said


def ddp_bare_model(rank):
    """Given the bare model the core cannot know of DDP: both passes are averaged, and the ranks agree."""
    model = mlp()
    wrapped = DistributedDataParallel(model)
    train(SAM(sgd(model), model=model, rho=0.5), wrapped, rank)
    return flat(model.parameters())


def _sharded(**settings):
    model = mlp()
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model[0], model[3]):
        fully_shard(layer, mesh=mesh, **settings)
    fully_shard(model, mesh=mesh, **settings)
    return model


def fsdp_methods(rank):
    seen = {}
    for name in METHODS:
        for foreign in (False, True):
            model = _sharded()
            opt = build(name, model, model, foreign)
            train(opt, model, rank)
            seen[name, foreign] = flat(model.parameters())
    return seen


#: The other form of two methods: whole tensors drawn, and a step after the step.
VARIANTS = {"esam": {"unit": "tensor", "beta": 0.5}, "wsam": {"decoupled": True}}


def fsdp_variants(rank):
    seen = {}
    for name, choices in VARIANTS.items():
        model = _sharded()
        train(build(name, model, model, **choices), model, rank)
        seen[name] = flat(model.parameters())
    return seen


def ddp_variants(rank):
    """With bucket views, whose storage the next pass overwrites, and two micro-batches a step."""
    seen = {}
    for name, choices in VARIANTS.items():
        model = mlp()
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        train(build(name, model, wrapped, sync_ascent=True, **choices), wrapped, rank, hold=contextlib.nullcontext)
        seen[name] = flat(model.parameters())
    return seen


def fsdp_settings(rank):
    """Unsharded copies that stay alive must not hide eps."""
    seen = {}
    for after_forward in (True, False):
        for after_backward in (True, False):
            model = _sharded(reshard_after_forward=after_forward)
            model.set_reshard_after_backward(after_backward)
            opt = SAM(sgd(model), model=model, rho=0.5)
            train(opt, model, rank)
            model.reshard()
            for layer in (model[0], model[3]):
                layer.reshard()
            seen[after_forward, after_backward] = flat(model.parameters())
    return seen


def fsdp_after_evaluation(rank):
    """Passes without ``backward()``, at w and at w + eps, leave gathered copies, also of frozen weights."""
    model = frozen_first(mlp())
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[3], mesh=mesh)
    fully_shard(model, mesh=mesh)
    opt = SAM(sgd(model), model=model, rho=0.5)
    for whole_x, whole_y in batches(6):
        x, y = half(rank, whole_x, whole_y)
        evaluate(model, whole_x)
        for loss in opt.passes():
            loss(model(x), y).backward()
            evaluate(model, whole_x)
        evaluate(model, whole_x)
        opt.step()
        opt.zero_grad()
    model.reshard()
    return flat(model.parameters())


def frozen_first(model):
    """Freeze a layer that FSDP gathers with the root's weights."""
    model[0].requires_grad_(False)
    return model


@torch.no_grad()
def evaluate(model, x):
    model(x)


def fsdp_restores(rank):
    model = _sharded()
    opt = SAM(sgd(model), model=model, rho=0.5)
    x, y = half(rank, *batches(1)[0])
    before = [p.to_local().clone() for p in model.parameters()]
    moved = []
    for loss in opt.passes():
        if not loss.is_ascent:
            moved.append(
                sum(((p.to_local() - b) ** 2).sum() for p, b in zip(model.parameters(), before, strict=True)).detach()
            )
        loss(model(x), y).backward()
    same = all(torch.equal(p.to_local(), b) for p, b in zip(model.parameters(), before, strict=True))
    square = moved[0]
    dist.all_reduce(square)
    return {"same": same, "norm": square.sqrt(), "told": opt.last.norm}


def fsdp_refusals(rank):
    said = {}
    model = _sharded()
    opt = SAM(sgd(model), model=model)
    model.set_requires_gradient_sync(False)
    try:
        next(opt.passes())
    except RuntimeError as error:
        said["unsynchronised"] = str(error)
    gathered = _sharded()
    evaluate(gathered, batches(1)[0][0])
    try:
        SAM(sgd(gathered), model=gathered)
    except ValueError as error:
        said["gathered"] = str(error)
    return said


def fsdp_checkpoint(rank):
    """Stop, save, load into a fresh model through torch.distributed.checkpoint, and go on."""
    seen = {}
    for name in SAVED:
        whole = _sharded()
        opt = build(name, whole, whole)
        train(opt, whole, rank, steps=3)
        state = {"model": get_model_state_dict(whole), "opt": get_optimizer_state_dict(whole, opt)}
        folder = f"{FOLDER}/{name}"
        dcp.save(state, checkpoint_id=folder)
        train(opt, whole, rank, steps=3, start=3)

        fresh = _sharded()
        with torch.no_grad():
            for p in fresh.parameters():
                p.mul_(2)
        again = build(name, fresh, fresh)
        target = {"model": get_model_state_dict(fresh), "opt": get_optimizer_state_dict(fresh, again)}
        dcp.load(target, checkpoint_id=folder)
        set_model_state_dict(fresh, target["model"])
        set_optimizer_state_dict(fresh, again, target["opt"])
        train(again, fresh, rank, steps=3, start=3)
        seen[name] = flat(whole.parameters()), flat(fresh.parameters())
    return seen


SCENARIOS = [v for k, v in list(globals().items()) if k.startswith(("ddp_", "fsdp_"))]


def main(rank, rendezvous, result):
    global FOLDER
    FOLDER = f"{result}.dcp"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    seen = {}
    for scenario in SCENARIOS:
        try:
            seen[scenario.__name__] = scenario(rank)
        except Exception:  # noqa: BLE001
            seen[scenario.__name__] = traceback.format_exc()
    torch.save(seen, f"{result}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
