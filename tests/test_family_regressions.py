"""What a hostile reading of the family found, one named test each."""

import pytest
import torch
from torch import nn

import bisam
from bisam import METHODS, RhoScheduler
from bisam.cadence import Adaptive
from bisam.geometry import OnlyModules
from bisam.testing import Net, batches, run_steps
from tests.makers import MAKERS

X, Y = batches(1)[0]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


def turn(opt, model, x=X, y=Y):
    for loss in opt.passes():
        loss(model(x), y).backward()


def resting(opt):
    return torch.cat([own["sharpness_resting"].flatten() for own in opt.state_dict()["state"].values()])


@pytest.mark.matrix("closure")
@pytest.mark.parametrize("name", METHODS)
def test_a_closure_that_clears_gradients_first_equals_the_loop(name):
    weights = []
    for closures in (True, False):
        model = Net()
        opt = MAKERS[name](sgd(model), model=model)
        for x, y in batches(6):

            def closure(model=model, opt=opt, x=x, y=y):
                opt.zero_grad()
                loss = opt.objective(model(x), y)
                loss.backward()
                return loss

            if closures:
                opt.step(closure)
            else:
                turn(opt, model, x, y)
                opt.step()
                opt.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


def test_an_overflow_does_not_redraw_the_sparse_mask():
    model = Net()
    opt = bisam.SSAM(sgd(model), model=model, every=1)
    turn(opt, model)
    opt.step()
    before = resting(opt)
    assert before.any()
    for loss in opt.passes():
        (loss(model(X), Y) * (torch.inf if loss.is_ascent else 1)).backward()
    assert torch.equal(resting(opt), before)


def test_the_sparse_mask_changes_once_a_step_whatever_the_micro_batches():
    model = Net()
    opt = bisam.SSAM(sgd(model), model=model, every=1)
    turn(opt, model)
    first = resting(opt)
    turn(opt, model)
    assert torch.equal(resting(opt), first)
    opt.step()
    turn(opt, model)
    assert not torch.equal(resting(opt), first)


@pytest.mark.parametrize("name", ["looksam", "vasso", "friendlysam", "ssam"])
def test_the_memory_follows_a_model_to_another_dtype(name):
    model = nn.Linear(6, 4)
    opt = MAKERS[name](sgd(model), model=model, rho=0.5)
    opt.state_dict()
    model.double()
    for _ in range(2):
        turn(opt, model)
        opt.step()
        opt.zero_grad()
    values = [v for own in opt.state_dict()["state"].values() for v in own.values()]
    assert all(v.dtype == torch.float64 and v.isfinite().all() and v.abs().max() < 1e3 for v in values)


@pytest.mark.parametrize("name", ["gsam", "wsam", "looksam"])
@pytest.mark.parametrize("scale", [1e-39, 1e38])
def test_combining_gradients_at_the_ends_of_float32(name, scale):
    model = nn.Linear(6, 4)
    opt = MAKERS[name](sgd(model), model=model)
    for loss in opt.passes():
        (loss(model(X.float()), Y) * scale).backward()
    assert model.weight.grad.isfinite().all()
    assert (model.weight.grad != 0).any()


def test_learning_a_fisher_mask_leaves_every_gradient_as_it_was():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).double()
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "rho": 0.0}]
    opt = bisam.SSAM(torch.optim.SGD(groups, lr=0.1), model=model, rule="fisher")

    def backward(i, factor=1.0):
        (nn.functional.cross_entropy(model(X[i : i + 1]), Y[i : i + 1]) * factor).backward()

    bisam.loops.learn_fisher_mask(opt, range(4), backward)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="not finite"):
        bisam.loops.learn_fisher_mask(opt, range(4), lambda i: backward(i, torch.inf))


def test_looksam_reuses_on_the_steps_an_adaptive_cadence_leaves_plain():
    class Even(Adaptive):
        def decide(self, step, squared_norm, moments):
            return step % 2 == 0, [1.0, 1.0]

    weights = []
    for cadence in (Even(), bisam.cadence.Every(2)):
        model = Net()
        run_steps(model, bisam.LookSAM(sgd(model), model=model, rho=0.5, cadence=cadence), batches(6))
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


def test_a_sparse_support_over_some_modules_only():
    model = Net()
    opt = bisam.SSAM(sgd(model), model=model, rho=0.5, inner=OnlyModules())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for loss in opt.passes():
        if not loss.is_ascent:
            assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} <= {
                "norm.weight",
                "norm.bias",
            }
            assert opt.last.perturbed
        loss(model(X), Y).backward()


def test_two_memories_of_one_name_are_refused():
    model = Net()
    with pytest.raises(ValueError, match="of one name"):
        bisam.SSAM(sgd(model), model=model, inner=bisam.geometry.SparseSupport())


def test_a_model_given_later_counts_as_one_given_at_once():
    norms = []
    for later in (False, True):
        model = Net()
        opt = bisam.ASAM(sgd(model), model=None if later else model)
        if later:
            opt.model = model
        turn(opt, model)
        norms.append(opt.last.norm)
    assert norms[0] == norms[1]
    with pytest.raises(ValueError, match="none of the parameters"):
        opt.model = Net()


def test_rho_along_the_learning_rate_between_two_bounds():
    model = Net()
    groups = [{"params": [model.first.weight]}, {"params": [model.head.weight], "rho": 0.0}]
    opt = bisam.GSAM(torch.optim.SGD(groups, lr=0.1), rho=0.2)
    lr = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1 - 0.25 * t)
    rho = RhoScheduler(opt, rho_min=0.02, lr_min=0.025)
    seen = [rho.get_last_rho()]
    for x, y in batches(4):
        turn(opt, model, x, y)
        opt.step()
        lr.step()
        rho.step()
        seen.append(rho.get_last_rho())
    assert [s[0] for s in seen] == pytest.approx([0.2, 0.14, 0.08, 0.02, 0.02])
    assert all(s[1] == 0 for s in seen)  # a group that was to stay put


def test_moments_of_a_loop_left_early_or_of_another_run_do_not_count():
    model = Net()
    opt = bisam.AESAM(sgd(model), model=model)
    turn(opt, model)
    for loss in opt.passes():
        (1e3 * loss(model(X), Y)).backward()
        if not loss.is_ascent:
            break
    opt.step()
    twin_model = Net()
    twin = bisam.AESAM(sgd(twin_model), model=twin_model)
    turn(twin, twin_model)
    twin.step()
    assert opt.param_groups[0]["sharpness_moments"] == twin.param_groups[0]["sharpness_moments"]


def test_a_checkpoint_that_does_not_fit_costs_no_memory():
    model, other = Net(), nn.Linear(2, 2)
    opt = bisam.VaSSO(sgd(model), model=model)
    turn(opt, model)
    opt.step()
    wrong = bisam.VaSSO(torch.optim.SGD([*other.parameters(), nn.Parameter(torch.ones(1))], lr=0.1)).state_dict()
    before = [own["sharpness_mean"].clone() for own in opt.state_dict()["state"].values()]
    with pytest.raises(ValueError, match="parameter group"):
        opt.load_state_dict(wrong)
    for old, own in zip(before, opt.state_dict()["state"].values(), strict=True):
        assert torch.equal(old, own["sharpness_mean"])


def test_fisher_squares_of_16_bit_gradients_do_not_overflow():
    model = nn.Linear(6, 4).half()
    opt = bisam.FisherSAM(sgd(model), rho=0.5)
    with pytest.warns(UserWarning, match="round small perturbations"):
        for loss in opt.passes():
            out = model(X.half()).float()
            (loss(out, Y) * (3000 if loss.is_ascent else 1)).backward()
    assert opt.last.perturbed
    assert opt.last.norm > 0


def test_sharded_parameters_need_their_model():
    model = Net()
    model.head.weight.device_mesh = "as a DTensor has one"
    with pytest.raises(ValueError, match="pass the model that shards them"):
        bisam.SAM(sgd(model))


def test_a_held_loop_does_not_switch_averaging_off_for_good(tmp_path):
    """no_sync() ends, and gives its flag back, before the loop that began inside it does."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(6, 4).double())
        opt = bisam.SAM(sgd(wrapped), model=wrapped)
        with wrapped.no_sync():
            held = opt.passes()
            next(held)(wrapped(X), Y).backward()
        opt.zero_grad()
        assert wrapped.require_backward_grad_sync
    finally:
        dist.destroy_process_group()


def test_the_memory_of_a_parameter_that_has_no_gradient_for_a_while_stays():
    model = Net()
    opt = bisam.VaSSO(sgd(model), model=model, theta=0.5)

    def means():
        state = opt.state_dict()["state"]
        names = [name for name, _ in model.named_parameters()]
        return {
            n: state[k]["sharpness_mean"].clone() for k, n in enumerate(names) if "sharpness_mean" in state.get(k, {})
        }

    seen = []
    for used in (True, False, True):
        for loss in opt.passes():
            (loss(model(X), Y) + (model.unused.sum() if used else 0.0)).backward()
        opt.step()
        opt.zero_grad()
        seen.append(means())
    assert torch.equal(seen[0]["unused"], torch.ones(2, dtype=torch.float64))
    assert all(torch.equal(mean["unused"], seen[0]["unused"]) for mean in seen)
    assert not torch.equal(seen[1]["head.weight"], seen[0]["head.weight"])
    assert not torch.equal(seen[2]["head.weight"], seen[1]["head.weight"])
