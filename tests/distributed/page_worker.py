"""One of two processes: runs Python blocks of a page as ``torchrun`` would, on this rank's half of each batch.

``python -m tests.distributed.page_worker RANK PORT RESULT``; writes the weights after each job.
"""

import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from bisam import BiSAM
from bisam.testing import batches
from tests.distributed.worker import flat, half, mlp
from tests.pages import blocks_with

STEPS = 4
#: Job -> page, a word of its blocks, and what a reader changes in them.
JOBS = {
    "whole batch": ("docs/loop/accumulation.md", "no_sync", {}),
    "whole batch, one ascent": (
        "docs/loop/accumulation.md",
        "no_sync",
        {"model=net, rho=0.05)": "model=net, rho=0.05, sync_ascent=True)"},
    ),
    "zero": ("docs/loop/distribution.md", "ZeroRedundancyOptimizer", {}),
}


def run(page, word, changes, rank):
    """The weights that the blocks leave behind."""
    model = mlp()
    loader = [half(rank, x, y) for x, y in batches(STEPS)]
    namespace = {"__name__": "page", "torch": torch, "model": model, "loader": loader}
    text = blocks_with(page, word)
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    exec(compile(text, page, "exec"), namespace)
    return flat(model.parameters())


def resume(rank):
    """The weights one step after a fresh run has loaded the checkpoint of the last job."""
    saved = torch.load("checkpoint.pt", weights_only=True)
    dist.init_process_group("gloo")
    model = mlp(seed=1)
    net = DistributedDataParallel(model)
    base = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=torch.optim.SGD, lr=0.2, momentum=0.9)
    opt = BiSAM(base, model=net, rho=0.5)
    model.load_state_dict(saved["model"])
    opt.load_state_dict(saved["opt"])
    x, y = half(rank, *batches(STEPS + 1)[STEPS])
    for objective in opt.passes():
        objective(net(x), y).backward()
    opt.step()
    dist.destroy_process_group()
    return flat(model.parameters())


def main(rank, ports, result):
    """Run all jobs, each on a port of its own: on one port a process may still meet the store of the job before."""
    left = iter(ports.split(","))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "WORLD_SIZE": "2"}
    os.chdir(os.path.dirname(result))
    seen = {}
    for job, told in JOBS.items():
        os.environ["MASTER_PORT"] = next(left)
        seen[job] = run(*told, rank)
    os.environ["MASTER_PORT"] = next(left)
    seen["zero resumed"] = resume(rank)
    torch.save(seen, f"{result}.{rank}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
