"""What breaks elsewhere, one named test each, and the contract in the situations of real training."""

import copy
import gc
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bisam
from bisam import ASAM, SAM, BiSAM, LowerBoundLoss, RhoScheduler, ScaledBall, SharpnessAware
from bisam.cadence import Cadence, Every
from bisam.combine import Blend
from bisam.direction import Direction
from bisam.geometry import Ellipsoid, FisherBall
from bisam.testing import Net, batches, bits, run_steps

X, Y = batches(1)[0]


def sgd(model, lr=0.1, momentum=0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def turn(opt, model, x=X, y=Y):
    for loss in opt.passes():
        loss(model(x), y).backward()


def moves(opt, model, x=X, y=Y):
    """Perturbation of every parameter, seen from inside the last pass."""
    before = [p.detach().clone() for p in model.parameters()]
    for loss in opt.passes():
        if not loss.is_ascent:
            eps = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
        loss(model(x), y).backward()
    return eps


# -- properties of eps -----------------------------------------------------------------------------------------------


@given(rho=st.floats(1e-3, 2.0), scale=st.floats(1e-30, 1e30), seed=st.integers(0, 50))
@settings(max_examples=30)
def test_eps_has_norm_rho_whatever_the_scale_of_the_loss(rho, scale, seed):
    model = Net(seed)
    opt = SAM(sgd(model), model=model, rho=rho, descent=lambda f, y: scale * nn.functional.cross_entropy(f, y))
    eps = moves(opt, model)
    assert math.isclose(torch.cat([e.flatten() for e in eps]).norm(), rho, rel_tol=1e-9)
    assert math.isclose(opt.last.norm, rho, rel_tol=1e-9)
    again = moves(SAM(sgd(model), model=model, rho=rho), model)
    for a, b in zip(eps, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@given(rho=st.floats(1e-2, 2.0), eta=st.sampled_from([0.0, 0.01, 1.0]), named=st.booleans())
@settings(max_examples=20)
def test_asam_eps_has_norm_rho_in_its_own_geometry(rho, eta, named):
    model = Net()
    opt = SAM(sgd(model), model=model if named else None, rho=rho, geometry=ScaledBall(eta))
    total = 0.0
    for (name, p), e in zip(model.named_parameters(), moves(opt, model), strict=True):
        t = p.detach().abs() + eta if "weight" in name or not named else torch.ones_like(p)
        total += ((e / t)[t > 0] ** 2).sum()
    assert math.isclose(math.sqrt(total), rho, rel_tol=1e-9)


def test_asam_is_blind_to_a_rescaling_between_layers():
    """Twice the weights here and half there compute the same function, and eps scales along."""
    model, scaled = (
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double() for _ in "ab"
    )
    scaled.load_state_dict(model.state_dict())
    with torch.no_grad():
        scaled[0].weight.mul_(8)
        scaled[2].weight.div_(8)
    first, second = (moves(ASAM(sgd(m), model=m, eta=0.0), m) for m in (model, scaled))
    torch.testing.assert_close(first[0] * 8, second[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(first[1] / 8, second[1], rtol=1e-9, atol=0)


def test_float32_gradients_whose_squares_vanish_still_have_a_direction():
    for scale in (1e-23, 1e-38, 1e37):
        model = Net().float()
        opt = SAM(sgd(model), model=model, descent=lambda f, y, s=scale: s * nn.functional.cross_entropy(f, y))
        turn(opt, model, X.float())
        assert math.isclose(opt.last.norm, 0.05, rel_tol=1e-4)


def test_radius_of_each_group():
    """eps_k = rho_k^2 g_k / sqrt(sum_j rho_j^2 ||g_j||^2); a group with rho = 0 shortens nobody else's."""
    model, plain = Net(), Net()
    plain.zero_grad()
    nn.functional.cross_entropy(plain(X), Y).backward()
    g1, g2 = plain.first.weight.grad, plain.middle.weight.grad
    groups = [
        {"params": [model.first.weight], "rho": 0.3},
        {"params": [model.middle.weight]},
        {"params": [model.head.weight], "rho": 0.0},
    ]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model, rho=0.1)
    eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model), strict=True))
    root = torch.sqrt(0.3**2 * (g1**2).sum() + 0.1**2 * (g2**2).sum())
    torch.testing.assert_close(eps["first.weight"], 0.3**2 * g1 / root, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(eps["middle.weight"], 0.1**2 * g2 / root, rtol=1e-9, atol=1e-14)
    assert (eps["head.weight"] == 0).all()


def test_bisam_climbs_q_and_descends_cross_entropy():
    model, plain = Net(), Net()
    LowerBoundLoss("tanh")(plain(X), Y).backward()
    eps = moves(BiSAM(sgd(model), model=model, bound="tanh"), model)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.parameters()]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    with torch.no_grad():
        for p, e, g in zip(plain.parameters(), eps, grads, strict=True):
            torch.testing.assert_close(e, 0.05 * g / norm, rtol=1e-9, atol=1e-14)
            p.add_(e)
    plain.zero_grad()
    nn.functional.cross_entropy(plain(X), Y).backward()
    torch.testing.assert_close(model.head.weight.grad, plain.head.weight.grad, rtol=1e-9, atol=1e-14)


# -- the loop --------------------------------------------------------------------------------------------------------


def test_objectives_tell_which_pass_they_are():
    model = Net()
    opt = BiSAM(sgd(model), model=model)
    seen = []
    for loss in opt.passes():
        assert opt.objective is loss
        value = loss(model(X), Y)
        assert loss.value == value.detach()
        value.backward()
        seen.append((loss.index, loss.is_ascent, value.item()))
    assert [s[:2] for s in seen] == [(0, True), (1, False)]
    assert math.isclose(opt.last.ascent_value, seen[0][2])
    assert "LowerBoundLoss" in repr(opt)
    assert "perturbed=True" in repr(opt.last)
    with pytest.raises(RuntimeError, match="while a pass runs"):
        _ = opt.objective


def test_a_closure_that_ignores_the_objective_is_refused_not_turned_into_sam():
    for missed in (0, 1):
        model = Net()
        opt, before = BiSAM(sgd(model), model=model), bits(model)
        with pytest.raises(RuntimeError, match=r"without a call of its (ascent|descent) objective"):
            for loss in opt.passes():
                (nn.functional.cross_entropy if loss.index == missed else loss)(model(X), Y).backward()
        assert bits(model) == before
        assert model.head.weight.grad is None
    model = Net()
    for _ in SAM(
        sgd(model), model=model
    ).passes():  # one and the same loss in both passes: any way of calling it will do
        nn.functional.cross_entropy(model(X), Y).backward()


@pytest.mark.parametrize("method", ["zero_grad", "state_dict", "passes"])
def test_ending_the_loop_from_inside_is_said_not_silent(method):
    model = Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    with pytest.raises(RuntimeError, match=r"inside `for objective in opt.passes\(\)`"):
        for _ in opt.passes():
            getattr(opt, method)()
            nn.functional.cross_entropy(model(X), Y).backward()
    assert bits(model) == before


def test_an_objective_whose_loop_has_ended_refuses_to_be_called():
    model = Net()
    opt = BiSAM(sgd(model), model=model)
    held = opt.passes()
    loss = next(held)
    opt.zero_grad()
    with pytest.raises(RuntimeError, match="pass is over"):
        loss(model(X), Y)


def test_step_inside_the_loop():
    """In the ascent pass it is an error; in the last one it ends the loop as the loop would have ended."""
    model, other = Net(), Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    with pytest.raises(RuntimeError, match="ascent pass"):
        for loss in opt.passes():
            loss(model(X), Y).backward()
            opt.step()
    assert bits(model) == before
    model.zero_grad()
    for loss in opt.passes():
        loss(model(X), Y).backward()
        if not loss.is_ascent:
            opt.step()
    run_steps(other, SAM(sgd(other), model=other), [(X, Y)])
    assert bits(model) == bits(other)


def test_passes_by_hand_lose_no_gradient():
    """``next()`` twice and never a third time: step(), or the next passes(), ends the loop as it should end."""
    model, other = Net(), Net()
    opt = BiSAM(sgd(model), model=model)
    for _ in range(2):
        held = opt.passes()
        for _ in range(2):
            next(held)(model(X), Y).backward()
    opt.step()
    theirs = BiSAM(sgd(other), model=other)
    turn(theirs, other)
    turn(theirs, other)
    theirs.step()
    assert bits(model) == bits(other)


def test_a_dropped_loop_restores_at_once():
    model = Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    held = opt.passes()
    next(held)(model(X), Y).backward()
    next(held)
    assert bits(model) != before
    del held
    assert bits(model) == before


@pytest.mark.parametrize("position", range(3))
def test_an_interrupt_in_the_middle_of_restoring(position, monkeypatch):
    """Ctrl-C between any two copies: the copies are made again, all of them."""
    model = Net()
    model.head.float()  # two dtypes, so two copies of weights, and one of buffers
    opt, before = SAM(sgd(model), model=model), bits(model)
    copy_back, calls = torch._foreach_copy_, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == position + 1:
            raise KeyboardInterrupt
        copy_back(*args)

    with pytest.raises(KeyboardInterrupt):
        for loss in opt.passes():
            loss(model.head(model.norm(model.first(X)).float()), Y).backward()
            if not loss.is_ascent:
                monkeypatch.setattr(torch, "_foreach_copy_", interrupted)
    assert len(calls) > position + 1
    assert bits(model) == before


class FaultAt(TorchDispatchMode):
    """Fail at the n-th operation, once."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.left -= 1
        if self.left == -1:
            raise MemoryError(f"at {func}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("phase", ["before the first pass", "between the passes", "after the last pass"])
def test_a_fault_at_any_operation_of_ours(phase):
    """Out of memory at each operation in turn: the weights are back, and so are the gradients from before."""
    number = 0
    while True:
        model = Net()
        opt, before = BiSAM(sgd(model), model=model), bits(model)
        model.head.weight.grad = torch.ones_like(model.head.weight)
        loop, failed = opt.passes(), False
        for current in ("before the first pass", "between the passes", "after the last pass"):
            try:
                with FaultAt(number if current == phase else 10**9):
                    objective = next(loop, None)
            except MemoryError:
                failed = True
                break
            if objective is not None:
                objective(model(X), Y).backward()
        del loop
        assert bits(model) == before, f"operation {number} {phase}"
        if not failed:
            break
        if phase != "after the last pass":  # there the gradient is whole already
            assert (model.head.weight.grad == 1).all()
        number += 1
    assert number > 0


def test_negative_zero_and_subnormal_weights_come_back():
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[0] = torch.tensor([-0.0, 1e-45, -1e-40, torch.nan])
    before = bits(layer)
    opt = SAM(sgd(layer))
    for zero in (1.0, 0.0):
        torch.set_flush_denormal(True)
        for loss in opt.passes():
            if zero == 0.0:
                assert bits(layer) == before
            (zero * layer.bias.sum() + 0 * loss(torch.randn(2, 3), torch.tensor([0, 1]))).backward()
        torch.set_flush_denormal(False)
        assert bits(layer) == before


def test_restoring_does_not_drift_in_bf16():
    layer = nn.Linear(8, 4).bfloat16()
    opt, before = SAM(sgd(layer)), bits(layer)
    x, y = torch.randn(2, 8).bfloat16(), torch.tensor([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            turn(opt, layer, x, y)
            opt.zero_grad()
    assert bits(layer) == before


# -- normalisation and randomness ------------------------------------------------------------------------------------


class Drifting(nn.Module):
    """A normalisation that no class list knows: it rebinds its buffer, and counts calls in a plain one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.calls += 1
        self.mask = ~self.mask
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: torch.compile(m, backend="eager"), lambda m: nn.Sequential(m)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_see_the_first_pass_alone(momentum, wrap):
    """Custom layers, momentum=None, a layer used twice in one forward, a compiled or wrapped model."""

    def build():
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(6, momentum=momentum).double()
        return nn.Sequential(Drifting(), norm, nn.Linear(6, 6).double(), norm, nn.Linear(6, 4).double())

    ours, plain = build(), build()
    wrapped = wrap(ours)
    opt = SAM(sgd(ours), model=wrapped, rho=0.5)
    for x, y in batches(3):
        plain.load_state_dict({**plain.state_dict(), **{n: p.detach() for n, p in ours.named_parameters()}})
        plain(x)
        turn(opt, wrapped, x, y)
        opt.step()
        opt.zero_grad()
        for (name, a), b in zip(ours.named_buffers(), plain.buffers(), strict=True):
            assert torch.equal(a, b), name
    assert ours[1].num_batches_tracked == 6


@pytest.mark.filterwarnings("ignore")
def test_under_ddp_with_the_wrapped_model(tmp_path):
    """One gloo process: the same steps and statistics as bare, also where gradients are views into DDP's buckets."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        bare, data = Net(), batches(3)
        run_steps(bare, SAM(sgd(bare), model=bare), data)
        for views in (True, False):
            model = Net()
            wrapped = nn.parallel.DistributedDataParallel(
                model, gradient_as_bucket_view=views, find_unused_parameters=True
            )
            run_steps(wrapped, SAM(sgd(model), model=wrapped), data)
            assert bits(model) == bits(bare)
            assert all(torch.equal(a, b) for a, b in zip(model.buffers(), bare.buffers(), strict=True))
    finally:
        torch.distributed.destroy_process_group()


def test_without_model_statistics_move_twice_as_documented():
    model = Net()
    turn(SAM(sgd(model)), model)
    assert model.norm.num_batches_tracked == 2


def test_same_dropout_draws_the_same_masks_in_both_passes():
    for same in (True, False):
        model = Net(dropout=0.5)
        opt = SAM(sgd(model), model=model, rho=1e-9, same_dropout=same)
        values = []
        for loss in opt.passes():
            loss(model(X), Y).backward()
            values.append(loss.value.item())
        assert math.isclose(values[0], values[1], rel_tol=1e-6) is same


# -- gradients of all kinds ------------------------------------------------------------------------------------------


def test_mixed_dtypes_complex_and_empty_parameters():
    parts = [
        torch.randn(3, dtype=torch.float32),
        torch.randn(4, dtype=torch.float64),
        torch.randn(2, dtype=torch.complex64),
        torch.randn(5, dtype=torch.float16),
        torch.randn(0),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ]
    params = [nn.Parameter(p) for p in parts]
    opt = SAM(
        torch.optim.SGD(params, lr=0.1),
        rho=0.5,
        descent=lambda: sum((p.abs().double() ** 2).sum() for p in params),
    )
    before = [p.detach().clone() for p in params]
    with pytest.warns(UserWarning, match="float16"):
        for loss in opt.passes():
            if not loss.is_ascent:
                moved = math.sqrt(
                    sum(((p.detach() - b).abs().double() ** 2).sum() for p, b in zip(params, before, strict=True))
                )
            loss().backward()
    assert math.isclose(moved, 0.5, rel_tol=2e-3)
    assert math.isclose(opt.last.norm, moved, rel_tol=1e-5)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_coarse_weights_report_the_realised_norm_and_warn_once():
    torch.manual_seed(0)
    layer = nn.Linear(1000, 100).bfloat16()
    opt = SAM(sgd(layer))
    x, y = torch.randn(4, 1000).bfloat16(), torch.tensor([0, 1, 2, 3])
    with pytest.warns(UserWarning, match=r"bfloat16.*opt\.last\.norm"):
        turn(opt, layer, x, y)
    assert 0.005 < opt.last.norm < 0.2
    assert not math.isclose(opt.last.norm, 0.05, rel_tol=1e-4)  # what bf16 weights really took
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turn(opt, layer, x, y)


def test_a_gradient_of_zero_in_float16_is_no_nan():
    layer = nn.Linear(3, 2).half()
    opt = SAM(sgd(layer))
    with pytest.warns(UserWarning, match="float16"):
        for _ in opt.passes():
            (layer.weight * 0).sum().backward()
    opt.step()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert not opt.last.perturbed


def test_sparse_gradients_are_refused_by_name_and_do_no_harm():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3))
    before = bits(model)
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(ValueError, match=r"0\.weight is sparse.*sparse=False"):
        turn(opt, model, torch.tensor([1, 2]), torch.tensor([0, 1]))
    assert bits(model) == before
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[1].parameters()}]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model)
    turn(opt, model, torch.tensor([1, 2]), torch.tensor([0, 1]))
    opt.step()
    assert opt.last.perturbed
    assert bits(model) != before


def test_frozen_parameters_stay():
    model = Net()
    model.first.weight.requires_grad_(False)
    opt, before = SAM(sgd(model), model=model), model.first.weight.clone()
    eps = moves(opt, model)
    opt.step()
    assert sum(e.abs().sum() for e in eps) > 0
    assert torch.equal(model.first.weight, before)


def test_gradients_from_zero_grad_false_keep_their_storage():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    pointers = [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
    opt.zero_grad(set_to_none=False)
    turn(opt, model)
    assert [p.grad.data_ptr() for p in model.parameters() if p.grad is not None] == pointers


def test_clipping_between_the_loop_and_step():
    model, other = Net(), Net()
    opt = SAM(sgd(model, momentum=0), model=model)
    turn(opt, model)
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    opt.step()
    turn(SAM(sgd(other), model=other), other)
    nn.utils.clip_grad_norm_(other.parameters(), 0.01)
    sgd(other, momentum=0).step()
    assert bits(model) == bits(other)
    change = torch.cat(
        [(p - q).detach().flatten() for p, q in zip(model.parameters(), Net().parameters(), strict=True)]
    )
    assert math.isclose(change.norm(), 0.1 * 0.01, rel_tol=1e-4)


# -- as a torch.optim.Optimizer --------------------------------------------------------------------------------------


def test_step_with_a_closure_equals_the_loop():
    model, other = Net(), Net()
    opt = BiSAM(sgd(model), model=model)
    indices = []

    def closure(x, y):
        opt.zero_grad()
        indices.append(opt.objective.index)
        loss = opt.objective(model(x), y)
        loss.backward()
        return loss.detach()

    values = []
    for batch in batches(4):
        with torch.no_grad():
            values.append(opt.step(lambda batch=batch: closure(*batch)).item())
    assert values == run_steps(other, BiSAM(sgd(other), model=other), batches(4))
    assert bits(model) == bits(other)
    assert indices == [0, 1] * 4


def test_a_closure_that_fails_leaves_no_trace():
    model = Net()
    opt, before = BiSAM(sgd(model), model=model), bits(model)

    def closure():
        loss = opt.objective(model(X), Y)
        loss.backward()
        if not opt.objective.is_ascent:
            raise MemoryError
        return loss

    with pytest.raises(MemoryError):
        opt.step(closure)
    assert bits(model) == before
    opt.zero_grad()
    turn(opt, model)


def test_hooks_run_once():
    model = Net()
    opt = SAM(sgd(model), model=model)
    calls = []
    opt.register_step_pre_hook(lambda *args: calls.append("before"))
    opt.register_step_post_hook(lambda *args: calls.append("after"))
    opt.register_state_dict_pre_hook(lambda opt: calls.append("saving"))
    opt.register_state_dict_post_hook(lambda opt, state: {**state, "mark": 1})
    opt.register_load_state_dict_pre_hook(lambda opt, state: {k: v for k, v in state.items() if k != "mark"})
    opt.register_load_state_dict_post_hook(lambda opt: calls.append("loaded"))
    turn(opt, model)
    opt.step()
    state = opt.state_dict()
    assert state["mark"] == 1
    opt.load_state_dict(state)
    assert calls == ["before", "after", "saving", "loaded"]


def test_groups_are_shared_and_new_ones_take_the_default_rho():
    model = Net()
    opt = SAM(torch.optim.SGD([model.first.weight], lr=0.1), model=model, rho=0.2)
    opt.add_param_group({"params": [model.middle.weight]})
    opt.base.add_param_group({"params": [model.head.weight], "rho": 0.7})
    assert [g["rho"] for g in opt.param_groups] == [0.2, 0.2, 0.7]
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    turn(opt, model)
    opt.step()
    assert opt.param_groups[0]["sharpness_steps"] == 1


def test_an_interval_method_remembers_its_phase():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Every(3))
    passes = []
    for step in range(7):
        passes.append(sum(1 for loss in opt.passes() if loss(model(X), Y).backward() is None))
        opt.step()
        opt.zero_grad()
        if step == 3:
            state = copy.deepcopy(opt.state_dict())
            opt = SAM(sgd(model), model=model, cadence=Every(3))
            opt.load_state_dict(state)
    assert passes == [2, 1, 1, 2, 1, 1, 2]


def test_cadence_advances_by_step_so_that_micro_batches_agree():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Every(2))
    counts = []
    for _ in range(4):
        counts.append([len([loss(model(X), Y).backward() for loss in opt.passes()]) for _ in range(3)])
        opt.step()
    assert counts == [[2, 2, 2], [1, 1, 1]] * 2


def test_all_lr_schedulers_that_ask_for_defaults_attach():
    model = Net()
    opt = SAM(sgd(model), model=model)
    torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=10)
    assert "max_lr" in opt.base.param_groups[0]


def test_nothing_is_kept_alive():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    opt.step()
    opt.zero_grad()
    gc.collect()
    weights = {p.data_ptr() for p in model.parameters()} | {b.data_ptr() for b in model.buffers()}
    kept = {t.data_ptr() for s in opt.state.values() for t in s.values() if isinstance(t, torch.Tensor)}
    big = [
        o
        for o in gc.get_objects()
        if type(o) is torch.Tensor
        and o.shape in {p.shape for p in model.parameters() if p.ndim == 2}
        and o.dtype == torch.float64
    ]
    assert not [o for o in big if o.data_ptr() not in weights | kept and o.is_floating_point()]


# -- construction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, ["base", "torch.optim.SGD("], lambda m: SAM(m.parameters())),
        (TypeError, ["base", "SAM", "base.unwrap()"], lambda m: SAM(SAM(sgd(m)))),
        (ValueError, ["LBFGS", "AdamW"], lambda m: SAM(torch.optim.LBFGS(m.parameters()))),
        (ValueError, ["rho=-0.1", "0 or greater"], lambda m: SAM(sgd(m), rho=-0.1)),
        (ValueError, ["rho=nan"], lambda m: SAM(sgd(m), rho=math.nan)),
        (TypeError, ["rho='big'"], lambda m: SAM(sgd(m), rho="big")),
        (
            ValueError,
            ["rho=-1"],
            lambda m: SAM(torch.optim.SGD([{"params": m.parameters(), "rho": -1}], lr=0.1)),
        ),
        (ValueError, ["model=", "none of the parameters"], lambda m: SAM(sgd(m), model=Net())),
        (ValueError, ["eta=-1"], lambda m: ASAM(sgd(m), eta=-1)),
        (ValueError, ["bound='huber'"], lambda m: BiSAM(sgd(m), bound="huber")),
        (ValueError, ["combine=Blend(weight=2.0)", "leave out"], lambda m: BiSAM(sgd(m), combine=Blend(2))),
        (ValueError, ["k=0"], lambda m: SAM(sgd(m), cadence=Every(0))),
        (ValueError, ["weight=0"], lambda m: Blend(0)),
    ],
)
def test_construction_errors(error, words, call):
    with pytest.raises(error) as caught:
        call(Net())
    for word in words:
        assert word in str(caught.value)


def test_a_base_is_wrapped_once():
    model = Net()
    base = sgd(model)
    SAM(base)
    with pytest.raises(ValueError, match="wrapped by a sharpness-aware optimizer already"):
        BiSAM(base)


def test_a_negative_rho_set_later_is_refused():
    model = Net()
    opt = SAM(sgd(model), model=model)
    opt.param_groups[0]["rho"] = -1.0
    with pytest.raises(ValueError, match="rho=-1"):
        turn(opt, model)


def test_bisam_ignores_what_its_descent_ignores():
    model = Net()
    opt = BiSAM(sgd(model), model=model, descent=nn.CrossEntropyLoss(ignore_index=2))
    assert opt.estimator.ascent.ignore_index == 2
    turn(opt, model)


class Downhill(Direction):
    def __call__(self, gradient, memory):
        gradient.mul_(-1.0)


class FirstLayer(Ellipsoid):
    """An ellipsoid of radius 2 over the parameters of the first layer."""

    def __init__(self):
        self.seen = []

    def metric(self, bucket, memory):
        return [torch.full_like(p, 2.0) for p in bucket.params]

    def __call__(self, buckets, memory):
        (bucket,) = buckets
        self.seen.extend(bucket.names)
        bucket.select(lambda number: bucket.names[number].startswith("first"))
        super().__call__(buckets, memory)


class FirstStep(Cadence):
    def __call__(self, step):
        return step == 0


def test_every_choice_can_be_ones_own():
    model, geometry = Net(), FirstLayer()
    opt = SharpnessAware(
        sgd(model),
        model=model,
        ascent=LowerBoundLoss(),
        direction=Downhill(),
        geometry=geometry,
        cadence=FirstStep(),
    )
    eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model), strict=True))
    assert (eps["first.weight"] != 0).any()
    assert all((e == 0).all() for name, e in eps.items() if not name.startswith("first"))
    plain = Net()
    LowerBoundLoss()(plain(X), Y).backward()
    assert (eps["first.weight"] * plain.first.weight.grad).sum() < 0
    assert "head.bias" in geometry.seen
    opt.step()
    assert [loss.is_ascent for loss in opt.passes() if loss(model(X), Y) is not None] == [False]


@pytest.mark.parametrize(
    ("axis", "base"),
    [
        ("direction", "bisam.direction.Direction"),
        ("geometry", "bisam.geometry.Geometry"),
        ("radius", "bisam.radius.Radius"),
        ("cadence", "bisam.cadence.Cadence"),
        ("combine", "bisam.combine.Combine"),
    ],
)
def test_a_plain_callable_is_refused_with_the_class_to_derive(axis, base):
    model = Net()
    inner = FisherBall()
    with pytest.raises(TypeError, match=f"{axis}=.*{base}.*bisam.choice.Wrapper"):
        SharpnessAware(sgd(model), model=model, **{axis: lambda buckets, memory: inner(buckets, memory)})
    with pytest.raises(TypeError, match="is a class: pass an object"):
        SharpnessAware(sgd(model), model=model, geometry=FisherBall)


# -- the schedule of rho ---------------------------------------------------------------------------------------------


def test_rho_follows_the_learning_rate():
    model = Net()
    opt = SAM(sgd(model, lr=0.4), model=model, rho=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)
    radius = RhoScheduler(opt, rho_min=0.1)
    for _ in range(10):
        assert math.isclose(opt.param_groups[0]["rho"], 0.1 + 0.1 * opt.param_groups[0]["lr"] / 0.4)
        run_steps(model, opt, batches(1))
        schedule.step()
        radius.step()
    assert radius.get_last_rho() == [pytest.approx(0.1)]


def test_rho_on_any_torch_schedule_saved_and_resumed():
    def build():
        model = Net()
        opt = SAM(sgd(model), model=model, rho=0.2)
        return model, opt, RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5))

    _, opt, schedule = build()
    seen = []
    for step in range(6):
        seen.append(opt.param_groups[0]["rho"])
        schedule.step()
        if step == 2:
            saved = copy.deepcopy((opt.state_dict(), schedule.state_dict()))
            _, opt, schedule = build()
            opt.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
    assert seen == pytest.approx([0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    assert opt.param_groups[0]["lr"] == 0.1


def test_rho_scheduler_errors():
    model = Net()
    with pytest.raises(TypeError, match="no rho"):
        RhoScheduler(sgd(model))
    opt = SAM(sgd(model))
    with pytest.raises(ValueError, match="lr_max=0"):
        RhoScheduler(opt, lr_max=0)
    with pytest.raises(ValueError, match="rho_min=-1"):
        RhoScheduler(opt, rho_min=-1)
    with pytest.raises(ValueError, match="leave them out"):
        RhoScheduler(opt, lambda o: torch.optim.lr_scheduler.StepLR(o, 2), rho_min=0.1)


def test_the_public_names_are_documented():
    for name in bisam.__all__:
        assert getattr(bisam, name).__doc__, name
