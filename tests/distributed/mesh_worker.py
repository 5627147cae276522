"""Four processes on a mesh of two by two: what methods send, and steps of weights that are sharded over two dimensions.

``python -m tests.distributed.mesh_worker RENDEZVOUS RESULT`` imports once and forks; each process runs every scenario
of this file and writes what it saw.
"""

import multiprocessing
import sys
import traceback
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from bisam import METHODS, SAM
from bisam.testing import batches, count_communication
from tests.distributed.worker import build, flat, mlp
from tests.makers import MAKERS

WORLD = 4
#: Steps that are counted: behind the first ones, in which DDP sorts its buckets and SSAM redraws its mask. LookSAM's
#: are one of each kind.
COUNTED = range(2, 3)
OF_LOOKSAM = range(4, 6)
TENSOR_PARALLEL = ("sam", "asam", "bisam", "gsam", "friendlysam")


def block(seed=0):
    """Two linear layers to be split over ``tp``, behind a layer norm that is not."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def two_groups(model):
    """A base optimizer with a group for the weights and one for all that has one axis, as weight decay is given."""
    params = list(model.parameters())
    groups = [[p for p in params if p.dim() > 1], [p for p in params if p.dim() < 2]]
    return torch.optim.SGD([{"params": group} for group in groups], lr=0.1, momentum=0.9)


def sent_in_steps(opt, model, x, y, steps=COUNTED):
    """What each of these steps sends: (its passes, its collectives)."""
    seen = []
    for step in range(steps.stop):
        with count_communication() as counted:
            passes = 0
            for objective in opt.passes() if hasattr(opt, "passes") else [nn.functional.cross_entropy]:
                objective(model(x), y).backward()
                passes += 1
            opt.step()
            opt.zero_grad()
        if step in steps:
            seen.append((passes, [tuple(one) for one in counted.sent]))
    return seen


def part(mesh, x, y):
    """This process's part of a batch: as many as there are along ``dp``."""
    rank = mesh.get_local_rank("dp")
    return x.chunk(2)[rank], y.chunk(2)[rank]


def sharded(mesh):
    model = mlp()
    for layer in (model[0], model[3]):
        fully_shard(layer, mesh=mesh["dp"])
    return fully_shard(model, mesh=mesh["dp"])


def wrapped(mesh):
    return DistributedDataParallel(mlp(), process_group=mesh.get_group("dp"))


def communication(mesh):
    """What a step of each method sends between two processes, of the plain base optimizer for a start."""
    seen = {}
    for kind, make in (("ddp", wrapped), ("fsdp", sharded)):
        model = make(mesh)
        seen[kind, "plain"] = sent_in_steps(two_groups(model), model, *part(mesh, *batches(1)[0]))
        for name in METHODS:
            model = make(mesh)
            opt = MAKERS[name](two_groups(model), model=model)
            steps = OF_LOOKSAM if name == "looksam" else COUNTED
            seen[kind, name] = sent_in_steps(opt, model, *part(mesh, *batches(1)[0]), steps)
    return seen


def redraw(mesh):
    """What SSAM sends in the step that redraws its mask."""
    model = sharded(mesh)
    opt = MAKERS["ssam"](two_groups(model), model=model)
    return sent_in_steps(opt, model, *part(mesh, *batches(1)[0]), steps=range(1))


def beside_the_profiler(mesh):
    """How many collectives of a step of GSAM are counted, and how many the backend has run."""
    model = sharded(mesh)
    opt = MAKERS["gsam"](two_groups(model), model=model)
    with torch.profiler.profile() as profile:
        ((_, counted),) = sent_in_steps(opt, model, *part(mesh, *batches(1)[0]), steps=range(1))
    return len(counted), sum(event.name.startswith("gloo:") for event in profile.events())


def over_tensors(mesh):
    """The block split over ``tp``, whole along ``dp``: its two data-parallel halves see the same batch."""
    model = block()
    return parallelize_module(model, mesh["tp"], {"1": ColwiseParallel(), "3": RowwiseParallel()})


def over_both(mesh):
    return fully_shard(over_tensors(mesh), mesh=mesh["dp"])


def tensor_parallel(mesh):
    """The weights and norms after three steps of the block, split over ``tp`` alone, and over ``dp`` too."""
    seen = {}
    for kind, make in (("tp", over_tensors), ("dp and tp", over_both)):
        for name in TENSOR_PARALLEL:
            model = make(mesh)
            opt, norms = build(name, model, model), []
            for x, y in batches(3):
                x, y = part(mesh, x, y) if kind == "dp and tp" else (x, y)
                for objective in opt.passes():
                    objective(model(x), y).backward()
                norms.append(opt.last.norm)
                opt.step()
                opt.zero_grad()
            seen[kind, name] = flat(model.parameters()), norms
    return seen


class Spread(nn.Module):
    """A linear layer that is whole along ``dp`` and split along ``tp``, all in tensors that are spread over both."""

    def __init__(self, mesh):
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(6, 4).double()
        self.weight = nn.Parameter(distribute_tensor(weight, mesh, [Replicate(), Shard(1)]))

    def forward(self, x):
        return x @ self.weight


def squares(output, target):
    return (output - target).square().mean()


def replicated_and_sharded(mesh):
    """Weights of two dimensions whose gradient backward() leaves as partial sums along ``dp``."""
    model = Spread(mesh)
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5, descent=squares)
    norms = []
    for x, _ in batches(3):
        y = distribute_tensor(x[:, :4].sin(), mesh, [Shard(0), Replicate()])
        x = distribute_tensor(x, mesh, [Shard(0), Replicate()])
        for objective in opt.passes():
            loss = objective(model(x), y)
            loss.backward()
        norms.append(opt.last.norm)
        opt.step()
        opt.zero_grad()
    return flat(model.parameters()), norms


def partial_weights(mesh):
    """A parameter that is a sum over processes."""
    from torch.distributed.tensor import DTensor

    model = nn.Module()
    model.weight = nn.Parameter(DTensor.from_local(torch.ones(3), mesh, [Partial(), Replicate()], run_check=False))
    try:
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    except ValueError as error:
        return str(error)


SCENARIOS = (communication, redraw, beside_the_profiler, tensor_parallel, replicated_and_sharded, partial_weights)


def main(rank, rendezvous, result):
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    seen = {}
    for scenario in SCENARIOS:
        try:
            seen[scenario.__name__] = scenario(mesh)
        except Exception:  # noqa: BLE001
            seen[scenario.__name__] = traceback.format_exc()
    torch.save(seen, f"{result}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=main, args=(rank, *sys.argv[1:])) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(process.exitcode for process in processes))
