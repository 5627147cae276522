"""Four processes: what each method sends, and weights that are sharded over two dimensions."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bisam import METHODS, SAM
from bisam.testing import batches
from tests.distributed import mesh_worker
from tests.distributed.mesh_worker import TENSOR_PARALLEL, block, squares
from tests.distributed.worker import build, flat, mlp

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import scaling

ROOT = Path(__file__).parent.parent.parent

WORDS = 8  # bytes of a float64, the weights' dtype and that of all norms

#: The norms that a step takes, by the method's own formulas; "told" is the norm of eps where it is not rho.
NORMS = {
    "sam": ["g"],
    "asam": ["T g", "told"],
    "bisam": ["g"],
    "esam": ["g", "told"],
    "gsam": ["g", "largest of g and g_s", "<g, g_s> beside g_s"],
    "wsam": ["g"],
    "looksam": ["g", "largest of g and g_s", "<g, g_s> beside g"],
    "friendlysam": ["largest of m and g", "g - m"],
    "vasso": ["largest of d and g", "d"],
    "samon": ["g"],
    "fishersam": ["T g", "told"],
    "ssam": ["g", "told"],
    "aesam": ["g, to decide", "g"],
    "tailsam": ["g"],
    "momentumsam": ["v"],
    "asyncsam": ["last g", "largest of g"],
    "usam": ["g"],
    "lesam": ["g"],
    "stablesam": ["g", "largest of g and g_s", "g beside g_s"],
    "functionalsam": ["g"],
}
#: LookSAM between two perturbed steps.
PLAIN_NORMS = {"looksam": ["largest of g", "g beside g_v"]}
#: Methods whose workers climb their own gradients under DDP: those that keep and combine none.
LOCAL = {
    *("sam", "asam", "bisam", "esam", "samon", "fishersam", "tailsam", "usam", "lesam", "functionalsam"),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    command = [sys.executable, "-m", "tests.distributed.mesh_worker", str(folder / "meet"), str(folder / "result")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=400, stderr=subprocess.DEVNULL)
    return [torch.load(folder / f"result.{rank}", weights_only=False) for rank in range(mesh_worker.WORLD)]


def of(seen, scenario, rank=0):
    told = seen[rank][scenario]
    assert not (isinstance(told, str) and "Traceback" in told), told
    return told


def passes_of(name):
    """Kinds of steps that are counted: passes, and whether the step perturbs."""
    return {"looksam": [(1, False), (2, True)], "momentumsam": [(1, True)], "asyncsam": [(1, True)]}.get(
        name, [(2, True)]
    )


@pytest.mark.parametrize("name", METHODS)
def test_ddp_sends_the_averages_of_the_passes_alone(seen, name):
    """One bucket with all gradients a pass, and none where each worker climbs its own gradient."""
    weights = sum(p.numel() for p in mlp().parameters())
    steps = of(seen, "communication")["ddp", name]
    assert [passes for passes, _ in steps] == [passes for passes, _ in passes_of(name)]
    for passes, sent in steps:
        averaged = passes - 1 if name in LOCAL else passes
        assert sent == [("all_reduce", weights * WORDS)] * averaged


@pytest.mark.parametrize("name", METHODS)
def test_fsdp_sends_what_the_passes_send_and_a_number_for_each_norm(seen, name):
    (_, one_pass), told = of(seen, "communication")["fsdp", "plain"][0], of(seen, "communication")["fsdp", name]
    assert [passes for passes, _ in told] == [passes for passes, _ in passes_of(name)]
    for (passes, sent), (_, perturbs) in zip(told, passes_of(name), strict=True):
        large = [one for one in sent if one[0] != "all_reduce"]
        numbers = [one for one in sent if one[0] == "all_reduce"]
        assert large == one_pass * passes
        norms = NORMS[name] if perturbs else PLAIN_NORMS[name]
        assert len(numbers) == len(norms)
        assert all(nbytes <= 4 * WORDS for _, nbytes in numbers)  # of two groups, and of two vectors at most


def test_a_pass_of_fsdp_gathers_and_scatters_each_unit(seen):
    """Three units: gathered once in forward, the two inner ones again in backward; the gradient of each scattered."""
    ((passes, sent),) = of(seen, "communication")["fsdp", "plain"]
    model = mlp()
    inner = [sum(_padded(p) for p in layer.parameters()) for layer in (model[0], model[3])]
    outer = sum(_padded(p) for layer in (model[1], model[5]) for p in layer.parameters())
    assert passes == 1
    gathered = sorted(nbytes for what, nbytes in sent if what == "all_gather")
    scattered = sorted(nbytes for what, nbytes in sent if what == "reduce_scatter")
    assert gathered == sorted(WORDS * n for n in (*inner, *inner, outer))
    assert scattered == sorted(WORDS * n for n in (*inner, outer))
    assert len(sent) == len(gathered) + len(scattered)


def test_the_arithmetic_of_scale_agrees_with_what_is_sent(seen):
    """``benchmarks/scaling.py`` on this perceptron, of which two shards of each weight are of one size."""
    told, model = of(seen, "communication"), mlp()
    weights = sum(p.numel() for p in model.parameters())
    inner = sum(_padded(p) for layer in (model[0], model[3]) for p in layer.parameters())
    outer = sum(_padded(p) for layer in (model[1], model[5]) for p in layer.parameters())
    for name in METHODS:
        for passes, sent in told["ddp", name]:
            expected = scaling.sent_by_ddp(weights, passes, local=name in LOCAL, word=WORDS)
            assert sum(nbytes for _, nbytes in sent) == expected
        for passes, sent in told["fsdp", name]:
            both = [sum(nbytes for one, nbytes in sent if one == what) for what in ("all_gather", "reduce_scatter")]
            assert tuple(both) == scaling.sent_by_fsdp(inner, outer, passes, word=WORDS, reduced=WORDS)


def _padded(param):
    """Entries of two shards, which are cut along the first axis and of one size."""
    return 2 * -(-param.shape[0] // 2) * param[0].numel()


def test_a_mask_is_redrawn_by_bisection(seen):
    """Two bisections over the 31 bits of float32, two counts, and the largest magnitude twice: as unit and to judge.

    Only the steps that redraw the mask (one in a hundred by default) send them.
    """
    ((passes, sent),) = of(seen, "redraw")
    assert passes == 2
    numbers = [nbytes for what, nbytes in sent if what == "all_reduce"]
    assert len(numbers) == 2 * 31 + 2 + 2 + 2  # with the norms of g and eps
    assert max(numbers) <= 2 * WORDS


def test_every_collective_that_the_backend_runs_is_counted(seen):
    counted, ran = of(seen, "beside_the_profiler")
    assert counted == ran > 0


@pytest.mark.parametrize("name", TENSOR_PARALLEL)
@pytest.mark.parametrize("kind", ["tp", "dp and tp"])
def test_weights_sharded_over_two_dimensions_take_the_steps_of_one_process(seen, kind, name):
    """Each weight counts once in a norm, whether other processes have it too (the norm layer along tp) or not."""
    model = block()
    opt, norms = build(name, model, model), []
    for x, y in batches(3):
        for objective in opt.passes():
            objective(model(x), y).backward()
        norms.append(opt.last.norm)
        opt.step()
        opt.zero_grad()
    for rank in range(mesh_worker.WORLD):
        weights, told = of(seen, "tensor_parallel", rank)[kind, name]
        torch.testing.assert_close(weights, flat(model.parameters()), rtol=1e-9, atol=1e-11)
        assert told == pytest.approx(norms, rel=1e-9)


def test_gradients_that_are_partial_sums_are_summed_before_the_climb(seen):
    model = torch.nn.Linear(6, 4, bias=False).double()
    torch.manual_seed(0)
    with torch.no_grad():
        model.weight.copy_(torch.randn(6, 4).double().T)
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5, descent=squares)
    for x, _ in batches(3):
        for objective in opt.passes():
            objective(model(x), x[:, :4].sin()).backward()
        opt.step()
        opt.zero_grad()
    for rank in range(mesh_worker.WORLD):
        weights, norms = of(seen, "replicated_and_sharded", rank)
        torch.testing.assert_close(weights.view(6, 4), model.weight.detach().T, rtol=1e-9, atol=1e-11)
        assert norms == pytest.approx([0.5] * 3, rel=1e-9)


def test_weights_that_are_partial_sums_are_refused(seen):
    assert "may not be a partial sum: give it Shard or Replicate" in of(seen, "partial_weights")
