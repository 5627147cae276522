"""The drop-in shim against a textbook of the older convention, and the faults that it must not share."""

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import bisam
from bisam.compat import SAM
from bisam.testing import Net, batches, bits, run_steps

BASES = {
    "sgd": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
    "adamw": (torch.optim.AdamW, {"lr": 0.005}),
}
X, Y = batches(1)[0]


def backward(model, x=X, y=Y):
    loss = cross_entropy(model(x), y)
    loss.backward()
    return loss


def half_steps(model, optimizer, data):
    """The loop that README files of this convention show."""
    for x, y in data:
        backward(model, x, y)
        optimizer.first_step(zero_grad=True)
        backward(model, x, y)
        optimizer.second_step(zero_grad=True)


def textbook(model, base, data, rho, adaptive=False):
    """What such code computes: eps = rho T^2 g / (||T g|| + 1e-12) with T = abs(w) or 1, on every parameter."""
    for x, y in data:
        backward(model, x, y)
        held = [p for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            scales = [p.abs() if adaptive else torch.ones_like(p) for p in held]
            norm = torch.stack([(t * p.grad).norm() for t, p in zip(scales, held, strict=True)]).norm()
            old = [p.clone() for p in held]
            for t, p in zip(scales, held, strict=True):
                p += rho * t**2 * p.grad / (norm + 1e-12)
        base.zero_grad()
        backward(model, x, y)
        with torch.no_grad():
            for p, w in zip(held, old, strict=True):
                p.copy_(w)
        base.step()
        base.zero_grad()


def build(name="sgd", rho=0.1, **kwargs):
    model = Net()
    base, settings = BASES[name]
    return model, SAM(model.parameters(), base, rho=rho, **settings, **kwargs)


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.matrix("compat")
@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("adaptive", "rho"), [(False, 0.1), (True, 0.5)], ids=["sam", "asam"])
def test_fifty_steps_equal_the_textbook(name, adaptive, rho):
    data, theirs = batches(50), Net()
    model, optimizer = build(name, rho, adaptive=adaptive)
    half_steps(model, optimizer, data)
    base, settings = BASES[name]
    textbook(theirs, base(theirs.parameters(), **settings), data, rho, adaptive)
    for (key, ours), other in zip(model.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
    assert bits(model) != bits(Net())


@pytest.mark.parametrize("params", ["named", "groups of named"])
def test_adaptive_scales_biases_also_where_names_are_known(params):
    data, one, two = batches(5), Net(), Net()
    named = list(two.named_parameters())
    given = named if params == "named" else [{"params": named[:3]}, {"params": named[3:]}]
    plain = SAM(one.parameters(), torch.optim.SGD, rho=1.0, adaptive=True, lr=0.1)
    half_steps(one, plain, data)
    half_steps(two, SAM(given, torch.optim.SGD, rho=1.0, adaptive=True, lr=0.1), data)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):  # groups are summed in another order
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:.*running statistics")  # the half steps move them twice, so the loop shall too
def test_closure_half_steps_and_loop_are_the_same_to_the_bit():
    """The closure of other implementations clears the gradients first; README's does not: both are the same step."""
    data = batches(10)
    by_hand, opt = build()
    half_steps(by_hand, opt, data)
    for clears in (False, True):
        model, opt = build()
        for x, y in data:

            def closure(model=model, opt=opt, x=x, y=y, clears=clears):
                if clears:
                    opt.zero_grad()
                return backward(model, x, y)

            backward(model, x, y)
            assert opt.step(closure).item() > 0
            opt.zero_grad()
        assert same(model, by_hand)
    model, opt = build()
    for x, y in data:
        for objective in opt.passes():
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    assert bits(model) == bits(by_hand)
    model, opt = build()
    run_steps(model, opt, data)
    assert bits(model) == bits(by_hand)


def test_zero_grad_by_hand_between_the_half_steps():
    data = batches(5)
    ours, opt = build()
    half_steps(ours, opt, data)
    for set_to_none in (True, False):
        model, opt = build()
        for x, y in data:
            backward(model, x, y)
            opt.first_step()
            opt.zero_grad(set_to_none)
            opt.zero_grad(set_to_none)
            backward(model, x, y)
            opt.second_step()
            opt.zero_grad()
        torch.testing.assert_close(
            nn.utils.parameters_to_vector(model.parameters()), nn.utils.parameters_to_vector(ours.parameters())
        )


def test_gradients_that_are_not_cleared_add_up():
    """As in the older code: without zero_grad the base sees g(w) + g(w + eps)."""
    model, opt = build(rho=0.1)
    other = Net()
    backward(other)
    at_w = other.head.weight.grad.clone()
    for objective in bisam.SAM(torch.optim.SGD(other.parameters(), lr=0.1), model=other, rho=0.1).passes():
        objective(other(X), Y).backward()  # gains the second gradient on top of the first
    backward(model)
    opt.first_step()
    assert torch.equal(model.head.weight.grad, at_w)
    backward(model)
    assert torch.equal(model.head.weight.grad, other.head.weight.grad)


@pytest.mark.parametrize("name", BASES)
def test_stop_and_resume(name, tmp_path):
    data = batches(10)
    model, opt = build(name)
    half_steps(model, opt, data)
    first, opt = build(name)
    half_steps(first, opt, data[:5])
    torch.save({"model": first.state_dict(), "opt": opt.state_dict()}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second, opt = build(name, rho=0.9)
    second.load_state_dict(saved["model"])
    opt.load_state_dict(saved["opt"])
    assert opt.param_groups[0]["rho"] == 0.1
    half_steps(second, opt, data[5:])
    assert same(second, model)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_train_alike(clone):
    data = batches(6)
    model, opt = build()
    half_steps(model, opt, data[:3])
    other, twin = clone((model, opt))
    half_steps(model, opt, data[3:])
    half_steps(other, twin, data[3:])
    assert bits(model) == bits(other)


def test_a_copy_in_mid_step_gives_the_weights_back():
    model, opt = build()
    before = bits(model)
    backward(model)
    opt.first_step(zero_grad=True)
    assert bits(model) != before
    copy.deepcopy(opt)
    assert bits(model) == before
    with pytest.raises(RuntimeError, match="second_step\\(\\) without first_step"):
        opt.second_step()


def test_weights_come_back_to_the_bit_and_groups_are_shared():
    model, opt = build("sgd", rho=5.0)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, 0.1)
    seen = []
    opt.base_optimizer.register_step_pre_hook(lambda *_: seen.append(bits(model)))
    before = bits(model)
    half_steps(model, opt, [(X, Y)])
    assert seen == [before]
    scheduler.step()  # warns, and so fails, unless second_step() counts as a step
    assert opt.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert opt.param_groups is opt.base_optimizer.param_groups


@pytest.mark.parametrize("bad", [0.0, torch.nan, torch.inf])
def test_a_gradient_without_a_direction_does_not_perturb(bad):
    model, opt = build()
    before = bits(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, bad) if p.requires_grad else None
    opt.first_step(zero_grad=True)
    assert bits(model) == before
    assert not opt.last.perturbed
    backward(model)
    opt.second_step(zero_grad=True)
    assert all(p.isfinite().all() for p in model.parameters())


def test_rho_belongs_to_the_group():
    model = Net()
    groups = [{"params": model.first.parameters(), "rho": 0.0}, {"params": model.head.parameters()}]
    opt = SAM(groups, torch.optim.SGD, rho=0.3, lr=0.1)
    first, head = model.first.weight.detach().clone(), model.head.weight.detach().clone()
    backward(model)
    opt.first_step(zero_grad=True)
    assert torch.equal(model.first.weight, first)
    moves = [model.head.weight.detach() - head, model.head.bias.detach() - Net().head.bias.detach()]
    assert torch.stack([m.norm() for m in moves]).norm().item() == pytest.approx(0.3)
    opt.restore()
    opt.add_param_group({"params": list(model.middle.named_parameters()), "rho": 0.1})
    assert [group["rho"] for group in opt.param_groups] == [0.0, 0.3, 0.1]


def test_rho_zero_is_the_plain_optimizer():
    data, plain = batches(5), Net()
    model, opt = build(rho=0.0)
    half_steps(model, opt, data)
    base = torch.optim.SGD(plain.parameters(), **BASES["sgd"][1])
    for x, y in data:
        backward(plain, x, y)
        base.step()
        base.zero_grad()
    assert bits(model) == bits(plain)


def test_a_parameter_with_a_gradient_in_one_pass_only():
    """Where the second pass drops a branch, its weights must come back all the same."""
    model, opt = build()
    branch = nn.Parameter(torch.ones(4, dtype=torch.float64))
    opt.add_param_group({"params": [branch]})
    (cross_entropy(model(X) + branch * torch.arange(4), Y)).backward()
    opt.first_step(zero_grad=True)
    assert not torch.equal(branch, torch.ones_like(branch))
    backward(model)
    opt.second_step(zero_grad=True)
    assert torch.equal(branch, torch.ones_like(branch))


def test_one_autocast_region_sees_the_perturbation():
    model, other = Net().float(), Net().float()
    data = X.float()
    with torch.autocast("cpu", torch.bfloat16):
        opt = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
        backward(model, data)
        opt.first_step(zero_grad=True)
        backward(model, data)
    opt2 = SAM(other.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
    for half in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(other(data), Y)
        loss.backward()
        if half == 0:
            opt2.first_step(zero_grad=True)
    assert torch.equal(model.head.weight.grad, other.head.weight.grad)
    plain = Net().float()
    backward(plain, data)
    assert (plain.head.weight.grad - model.head.weight.grad).norm() > 0.05 * plain.head.weight.grad.norm()


def scaled_step(model, opt, scaler, overflow=False):
    scaler.scale(cross_entropy(model(X), Y)).backward()
    opt.first_step(zero_grad=True)
    scaler.scale(cross_entropy(model(X), Y) * (torch.inf if overflow else 1)).backward()
    scaler.step(opt)
    scaler.update()
    opt.zero_grad()


def test_scaler_step_may_stand_for_second_step():
    model, opt = build()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for _ in range(3):
        scaled_step(model, opt, scaler)
    plain, twin = build()
    half_steps(plain, twin, [(X, Y)] * 3)
    assert bits(model) == bits(plain)
    before = bits(model)
    scaled_step(model, opt, scaler, overflow=True)  # no step, and the weights are back none the less
    assert bits(model) == before
    scaled_step(model, opt, scaler)
    assert bits(model) != before


def test_an_exception_in_the_closure_gives_the_weights_back():
    model, opt = build()
    before = bits(model)
    backward(model)

    def closure():
        assert bits(model) != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opt.step(closure)
    assert bits(model) == before
    half_steps(model, opt, [(X, Y)])
    assert bits(model) != before


def test_a_checkpoint_of_another_sam_without_momentum():
    """It holds what its wrapper kept in ``state`` and nothing of SGD's: say so, and do not feed it to the base."""
    model, opt = build("adamw")
    foreign = copy.deepcopy(opt.state_dict())
    foreign["state"] = {0: {"old_p": model.first.weight.detach().clone()}, 2: {"e_w": torch.zeros(1)}}
    foreign["param_groups"][0] |= {"lr": 0.5, "adaptive": False}
    with pytest.warns(UserWarning, match="does not save the base optimizer's state"):
        opt.load_state_dict(foreign)
    assert opt.param_groups[0]["lr"] == 0.5
    half_steps(model, opt, [(X, Y)])
    foreign["param_groups"][0]["adaptive"] = True
    with pytest.raises(ValueError, match="adaptive=True in a param group"):
        opt.load_state_dict(foreign)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda model, opt: opt.first_step(), "no gradient: call loss.backward"),
        (lambda model, opt: opt.second_step(), "second_step\\(\\) without first_step"),
        (lambda model, opt: opt.step(), "would not be sharpness-aware"),
        (lambda model, opt: (backward(model), opt.step()), "would not be sharpness-aware"),
        (lambda model, opt: (backward(model), opt.first_step(), opt.second_step()), "no gradient was computed at w"),
        (lambda model, opt: (backward(model), opt.first_step(), opt.first_step()), "called twice"),
        (lambda model, opt: (backward(model), opt.first_step(), opt.state_dict(), opt.second_step()), "without first"),
    ],
)
def test_misuse_is_refused(misuse, message):
    model, opt = build()
    before = bits(model)
    with pytest.raises(RuntimeError, match=message):
        misuse(model, opt)
    opt.restore()
    assert bits(model) == before


def test_a_wrong_constructor_names_the_remedy():
    params = list(Net().parameters())
    with pytest.raises(TypeError, match=r"bisam\.SAM\(base, model=model\)"):
        SAM(params, torch.optim.SGD(params, lr=0.1))
    with pytest.raises(TypeError, match="perturb_eps=1e-12 is no argument"):
        SAM(params, torch.optim.SGD, lr=0.1, perturb_eps=1e-12)
    with pytest.raises(TypeError, match=r"set optimizer\.model = model"):
        SAM(params, torch.optim.SGD, lr=0.1, model=Net())
    with pytest.raises(ValueError, match="rho=-1"):
        SAM(params, torch.optim.SGD, rho=-1, lr=0.1)
    with pytest.raises(ValueError, match="one choice for all groups"):
        SAM([{"params": params, "adaptive": True}], torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="rho of its own"):
        SAM(params, torch.optim.Adadelta)


def test_the_model_set_later_keeps_its_buffers():
    data, ours = batches(3), Net()
    model, opt = build()
    opt.model = model
    half_steps(model, opt, data)
    run_steps(ours, bisam.SAM(torch.optim.SGD(ours.parameters(), **BASES["sgd"][1]), model=ours, rho=0.1), data)
    assert same(model, ours)


def test_a_script_of_the_usual_shape():
    """Two groups, a schedule on the wrapper, clipping before each half step, BatchNorm switched off by hand."""
    torch.manual_seed(0)
    model = Net()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    optimizer = SAM(
        [{"params": [*model.first.parameters(), *model.middle.parameters()]}, {"params": model.head.parameters()}],
        torch.optim.SGD,
        rho=0.05,
        lr=0.1,
        momentum=0.9,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    losses = []
    for x, y in batches(30):
        model.train()
        loss = cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.first_step(zero_grad=True)
        for norm in norms:
            norm.momentum, norm.backup = 0.0, norm.momentum
        cross_entropy(model(x), y, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.second_step(zero_grad=True)
        for norm in norms:
            norm.momentum = norm.backup
        scheduler.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert optimizer.param_groups[0]["lr"] < 1e-9


def test_the_code_on_the_migration_page_runs():
    """All blocks in order, in one namespace that holds the reader's model, loader and loss."""
    page = Path(__file__).parent.parent / "docs" / "migration.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) == 4
    model = Net()
    names = {"torch": torch, "model": model, "loader": batches(3), "loss_function": nn.CrossEntropyLoss()}
    for block in blocks:
        before = bits(model)
        exec(compile(block, page.name, "exec"), names)
        assert bits(model) != before
