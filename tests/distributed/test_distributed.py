"""Two real processes: what they computed must be what one process computes that knows both halves of the batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bisam import SAM
from bisam.testing import batches, run_steps
from tests.distributed import worker
from tests.makers import UNDER_EACH_ASCENT, each_ascent

ROOT = Path(__file__).parent.parent.parent
CASES = pytest.mark.parametrize("case", UNDER_EACH_ASCENT, ids=each_ascent)
RANDOM = {"esam", "ssam"}  # each process draws the mask of its own shards


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "tests.distributed.worker"]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder / "meet"), str(folder / "result")], cwd=ROOT)
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"result.{rank}", weights_only=False) for rank in (0, 1)]


def both(seen, name):
    """What the two ranks saw, after checking that they agree to the bit."""
    for result in (seen[0][name], seen[1][name]):
        assert not isinstance(result, str), result
    assert seen[0][name].keys() == seen[1][name].keys()
    return {key: one(seen, name, key) for key in seen[0][name]}


def one(seen, name, key):
    """Of what the two ranks saw there, this one."""
    for result in (seen[0][name], seen[1][name]):
        assert not isinstance(result, str), result
    ours, theirs = (result[name][key] for result in seen)
    for a, b in zip(*[v if isinstance(v, tuple) else (v,) for v in (ours, theirs)], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, f"{name}, {key}: the ranks differ"
    return ours


def together(steps=6, local=True, micro=1, rho=0.5):
    """SAM on both halves in one process; ``local``: each half, or micro-batch of it, climbs its own gradient."""
    model = worker.mlp()
    params = list(model.parameters())
    base = worker.sgd(model)
    for x, y in batches(steps):
        halves = [worker.half(rank, x, y) for rank in (0, 1)]
        total = [torch.zeros_like(p) for p in params]
        for xs in zip(*[list(zip(h[0].chunk(micro), h[1].chunk(micro), strict=True)) for h in halves], strict=True):
            firsts = [torch.autograd.grad(nn.functional.cross_entropy(model(a), b), params) for a, b in xs]
            if not local:
                firsts = [[(g + h) / 2 for g, h in zip(*firsts, strict=True)]] * 2
            for (a, b), first in zip(xs, firsts, strict=True):
                norm = torch.sqrt(sum((g**2).sum() for g in first))
                saved = [p.detach().clone() for p in params]
                with torch.no_grad():
                    for p, g in zip(params, first, strict=True):
                        p.add_(rho * g / norm)
                second = torch.autograd.grad(nn.functional.cross_entropy(model(a), b), params)
                with torch.no_grad():
                    for p, s, t, g in zip(params, saved, total, second, strict=True):
                        p.copy_(s)
                        t.add_(g / 2 / micro)
        for p, t in zip(params, total, strict=True):
            p.grad = t
        base.step()
    return worker.flat(params)


def close(a, b, what):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m: f"{what}: {m}")


def test_workers_climb_their_own_gradients(seen):
    local, shared = together(), together(local=False)
    assert not torch.allclose(local, shared, rtol=1e-4)  # the two can be told apart
    results = both(seen, "ddp_local")
    for name in ("plain", "bucket-views"):
        close(results[name], local, name)
    for name, weights in both(seen, "ddp_sync").items():
        close(weights, shared, name)
    assert torch.equal(seen[0]["ddp_bare_model"], seen[1]["ddp_bare_model"])
    close(seen[0]["ddp_bare_model"], shared, "bare model")


def test_a_static_graph_is_learnt_in_one_averaged_pass(seen):
    results = both(seen, "ddp_local")
    assert torch.equal(results["static"], results["static-views"])
    for other in ("local", "shared"):
        assert not torch.allclose(results["static"], together(local=other == "local"), rtol=1e-12)
    expected = _first_step_shared()
    close(results["static"], expected, "static graph")


def _first_step_shared():
    """The first step climbs the averaged gradient, all others local ones."""
    model = worker.mlp()
    params = list(model.parameters())
    base = worker.sgd(model)
    for number, (x, y) in enumerate(batches(6)):
        halves = [worker.half(rank, x, y) for rank in (0, 1)]
        firsts = [torch.autograd.grad(nn.functional.cross_entropy(model(a), b), params) for a, b in halves]
        if number == 0:
            firsts = [[(g + h) / 2 for g, h in zip(*firsts, strict=True)]] * 2
        total = [torch.zeros_like(p) for p in params]
        for (a, b), first in zip(halves, firsts, strict=True):
            norm = torch.sqrt(sum((g**2).sum() for g in first))
            moved = {n: p + 0.5 * g / norm for (n, p), g in zip(model.named_parameters(), first, strict=True)}
            value = nn.functional.cross_entropy(torch.func.functional_call(model, moved, (a,)), b)
            for t, g in zip(total, torch.autograd.grad(value, list(moved.values())), strict=True):
                t.add_(g / 2)
        for p, t in zip(params, total, strict=True):
            p.grad = t
        base.step()
    return worker.flat(params)


def test_accumulation_under_no_sync(seen):
    results = both(seen, "ddp_accumulation")
    for (name, sync), weights in results.items():
        close(weights, together(local=not sync, micro=2), f"{name}, sync_ascent={sync}")


def test_ranks_stay_equal_with_batchnorm_and_unused_parameters(seen):
    for result in (seen[0], seen[1]):
        assert isinstance(result["ddp_batchnorm"], torch.Tensor), result["ddp_batchnorm"]
    assert torch.equal(seen[0]["ddp_batchnorm"], seen[1]["ddp_batchnorm"])


@pytest.mark.matrix("DDP")
@CASES
def test_every_method_keeps_the_ranks_equal(seen, case):
    name, foreign = case
    start = worker.flat(worker.mlp().parameters())
    assert not torch.equal(one(seen, "ddp_methods", (name, foreign))[: len(start)], start)


def test_methods_that_combine_refuse_no_sync(seen):
    said = both(seen, "ddp_refusals")
    assert set(said) == worker.THIRD
    assert all("outside of no_sync()" in words for words in said.values())


@pytest.mark.matrix("FSDP2")
@CASES
def test_fsdp_equals_one_process(seen, case):
    name, foreign = case
    weights = one(seen, "fsdp_methods", (name, foreign))
    if name in RANDOM:
        return  # that the ranks agree is all that can be asked
    model = worker.mlp()
    run_steps(model, worker.build(name, model, model, foreign), batches(6))
    close(weights, worker.flat(model.parameters()), name)


@pytest.mark.parametrize("name", worker.VARIANTS)
def test_drawn_tensors_and_a_step_after_the_step_need_no_whole_weights(seen, name):
    """All shards of a tensor share its draw, and each process steps its own shards."""
    model = worker.mlp()
    run_steps(model, worker.build(name, model, model, **worker.VARIANTS[name]), batches(6))
    close(one(seen, "fsdp_variants", name), worker.flat(model.parameters()), name)


@pytest.mark.parametrize("name", worker.VARIANTS)
def test_drawn_tensors_and_a_step_after_the_step_under_ddp(seen, name):
    """Micro-batch k of the step is the union of the ranks' k-th ones."""
    model = worker.mlp()
    opt = worker.build(name, model, model, **worker.VARIANTS[name])
    for x, y in batches(6):
        halves = [[t.chunk(2) for t in worker.half(rank, x, y)] for rank in (0, 1)]
        for number in (0, 1):
            xs, ys = (torch.cat([half[i][number] for half in halves]) for i in (0, 1))
            for objective in opt.passes():
                (objective(model(xs), ys) / 2).backward()
        opt.step()
        opt.zero_grad()
    close(one(seen, "ddp_variants", name), worker.flat(model.parameters()), name)


def test_fsdp_shows_eps_whatever_it_keeps_unsharded(seen):
    for settings, weights in both(seen, "fsdp_settings").items():
        close(weights, together(local=False), f"reshard after forward, backward: {settings}")


def test_fsdp_restores_to_the_bit_and_tells_the_global_norm(seen):
    for result in seen:
        assert not isinstance(result["fsdp_restores"], str), result["fsdp_restores"]
        assert result["fsdp_restores"]["same"]
        assert float(result["fsdp_restores"]["norm"]) == pytest.approx(0.5, rel=1e-9)
        assert result["fsdp_restores"]["told"] == pytest.approx(0.5, rel=1e-9)


def test_fsdp_lets_go_of_what_an_evaluation_has_gathered(seen):
    model = worker.frozen_first(worker.mlp())
    run_steps(model, SAM(worker.sgd(model), model=model, rho=0.5), batches(6))
    for result in seen:
        assert isinstance(result["fsdp_after_evaluation"], torch.Tensor), result["fsdp_after_evaluation"]
        close(result["fsdp_after_evaluation"], worker.flat(model.parameters()), "after evaluations")


def test_an_optimizer_of_gathered_copies_is_refused(seen):
    assert "call model.reshard() before base is built" in both(seen, "fsdp_refusals")["gathered"]


def test_fsdp_without_synchronised_gradients_is_refused(seen):
    assert "set_requires_gradient_sync(False)" in both(seen, "fsdp_refusals")["unsynchronised"]


@pytest.mark.matrix("FSDP2")
@pytest.mark.parametrize("name", worker.SAVED)
def test_sharded_checkpoints_resume_to_the_bit(seen, name):
    whole, resumed = one(seen, "fsdp_checkpoint", name)
    assert torch.equal(whole, resumed)
