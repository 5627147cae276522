"""The blocks of the pages, run by two real processes: their weights are those of one process."""

import contextlib
import copy
import socket
import subprocess
import sys

import pytest
import torch

from bisam import BiSAM, LowerBoundLoss
from bisam.testing import batches, run_steps
from tests.distributed.page_worker import JOBS, STEPS
from tests.distributed.worker import flat, half, mlp, sgd
from tests.pages import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def seen(folder):
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(len(JOBS) + 1)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = ",".join(str(one.getsockname()[1]) for one in free)
    result = str(folder / "result")
    command = [sys.executable, "-m", "tests.distributed.page_worker"]
    processes = [subprocess.Popen([*command, str(rank), ports, result], cwd=ROOT) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(f"{result}.{rank}") for rank in (0, 1)]


def weights(seen, job):
    """The weights after a job, which both workers have, to the bit."""
    assert torch.equal(seen[0][job], seen[1][job])
    return seen[0][job]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def own_ascents(steps=STEPS):
    """BiSAM, written out: each half of the batch climbs its own lower bound, and the mean of both is descended."""
    model = mlp()
    train_on_halves(model, sgd(model), batches(steps))
    return flat(model.parameters())


def train_on_halves(model, base, data):
    for x, y in data:
        total = []
        for xs, ys in (half(0, x, y), half(1, x, y)):
            there = copy.deepcopy(model)
            params = list(there.parameters())
            gradient = torch.autograd.grad(LowerBoundLoss()(there(xs), ys), params)
            norm = torch.sqrt(sum(g.square().sum() for g in gradient))
            with torch.no_grad():
                for p, g in zip(params, gradient, strict=True):
                    p.add_(0.05 * g / norm)
            total.append(torch.autograd.grad(torch.nn.functional.cross_entropy(there(xs), ys), params))
        for p, a, b in zip(model.parameters(), *total, strict=True):
            p.grad = (a + b) / 2
        base.step()


def one_process():
    model = mlp()
    run_steps(model, BiSAM(sgd(model), model=model, rho=0.05), batches(STEPS))
    return flat(model.parameters())


def test_micro_batches_inside_the_pass_climb_the_whole_batch_of_all_workers(seen):
    close(weights(seen, "whole batch, one ascent"), one_process())


def test_micro_batches_inside_the_pass_climb_the_whole_batch_of_the_worker(seen):
    close(weights(seen, "whole batch"), own_ascents())
    assert not torch.allclose(own_ascents(), one_process(), rtol=1e-6)  # the two can be told apart


def test_sharded_states_do_not_change_the_weights(seen):
    close(weights(seen, "zero"), own_ascents())


def test_a_checkpoint_of_sharded_states_is_that_of_the_base_optimizer(seen, folder):
    close(weights(seen, "zero resumed"), own_ascents(STEPS + 1))
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    model = mlp(seed=1)
    opt = BiSAM(sgd(model), model=model, rho=0.5)
    model.load_state_dict(saved["model"])
    opt.load_state_dict(saved["opt"])
    assert opt.param_groups[0]["rho"] == 0.05
    train_on_halves(model, opt.unwrap(), batches(STEPS + 1)[STEPS:])
    close(flat(model.parameters()), own_ascents(STEPS + 1))
