"""Every optimizer that can be wrapped, those that cannot, and the two examples that use them."""

import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import SAM, BiSAM
from bisam.testing import Net, batches, bits, run_steps
from tests.reference.steps import sharpness_aware_step

ROOT = Path(__file__).parent.parent
RHO = 0.1
O = torch.optim  # noqa: E741

BASES = {
    "SGD": lambda p: O.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "SGD-foreach": lambda p: O.SGD(p, lr=0.05, momentum=0.9, foreach=True),
    "SGD-fused": lambda p: O.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "Adam": lambda p: O.Adam(p, lr=0.01, amsgrad=True),
    "Adam-foreach": lambda p: O.Adam(p, lr=0.01, foreach=True),
    "Adam-fused": lambda p: O.Adam(p, lr=0.01, fused=True),
    "Adam-tensor-lr": lambda p: O.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "AdamW": lambda p: O.AdamW(p, lr=0.01),
    "AdamW-foreach": lambda p: O.AdamW(p, lr=0.01, foreach=True),
    "AdamW-fused": lambda p: O.AdamW(p, lr=0.01, fused=True),
    "NAdam": lambda p: O.NAdam(p, lr=0.01),
    "NAdam-foreach": lambda p: O.NAdam(p, lr=0.01, foreach=True),
    "RAdam": lambda p: O.RAdam(p, lr=0.01),
    "RAdam-foreach": lambda p: O.RAdam(p, lr=0.01, foreach=True),
    "Adagrad": lambda p: O.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "Adagrad-fused": lambda p: O.Adagrad(p, lr=0.05, fused=True),
    "Adamax": lambda p: O.Adamax(p, lr=0.01),
    "Adamax-foreach": lambda p: O.Adamax(p, lr=0.01, foreach=True),
    "RMSprop": lambda p: O.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "RMSprop-foreach": lambda p: O.RMSprop(p, lr=0.01, foreach=True),
    "Rprop": lambda p: O.Rprop(p, lr=0.01),
    "Rprop-foreach": lambda p: O.Rprop(p, lr=0.01, foreach=True),
    "ASGD": lambda p: O.ASGD(p, lr=0.05, t0=2),
    "ASGD-foreach": lambda p: O.ASGD(p, lr=0.05, t0=2, foreach=True),
}
if hasattr(O, "Adafactor"):
    BASES["Adafactor"] = lambda p: O.Adafactor(p, lr=0.01)
    BASES["Adafactor-foreach"] = lambda p: O.Adafactor(p, lr=0.01, foreach=True)
if hasattr(O, "Muon"):
    BASES["Muon"] = lambda p: O.Muon(p, lr=0.01)

#: Optimizers of torch that no wrapper can serve, or that serve no wrapper; the others must be in the table above.
REFUSED = {"LBFGS", "Adadelta", "SparseAdam"}


def build(name):
    """Muon takes matrices alone."""
    if name == "Muon":
        torch.manual_seed(0)
        layers = [nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 4, bias=False)]
        return nn.Sequential(*layers).double()
    return Net()


def same(model, other):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_the_table_is_whole():
    """A torch release may bring an optimizer: decide about it here."""
    everything = {name for name, item in vars(O).items() if isinstance(item, type) and issubclass(item, O.Optimizer)}
    assert everything - {"Optimizer"} - REFUSED == {name.partition("-")[0] for name in BASES}


@pytest.mark.parametrize("name", BASES)
def test_three_steps_equal_the_textbook_and_resume(name):
    data = batches(6)
    ours, theirs = build(name), build(name)
    start = bits(ours)
    opt = SAM(BASES[name](ours.parameters()), model=ours, rho=RHO)
    run_steps(ours, opt, data[:3])
    base = BASES[name](theirs.parameters())
    for x, y in data[:3]:
        sharpness_aware_step(theirs, base, x, y, rho=RHO)
    same(ours, theirs)
    assert bits(ours) != start

    resumed = build(name)
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    again = SAM(BASES[name](resumed.parameters()), model=resumed, rho=0.7)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    run_steps(ours, opt, data[3:])
    run_steps(resumed, again, data[3:])
    if name.startswith("NAdam"):  # torch keeps its mu_product in float32 and loads it as float64
        torch.testing.assert_close(resumed.state_dict(), ours.state_dict(), rtol=1e-5, atol=1e-7)
    else:
        assert bits(ours) == bits(resumed)


# -- refused -----------------------------------------------------------------------------------------------------


def test_lbfgs_evaluates_the_loss_itself():
    with pytest.raises(ValueError, match="LBFGS evaluates the loss itself"):
        SAM(O.LBFGS(Net().parameters()))


def test_adadelta_has_a_rho_of_its_own():
    with pytest.raises(ValueError, match="Adadelta has a rho of its own"):
        SAM(O.Adadelta(Net().parameters()))


def test_sparse_adam_has_sparse_gradients():
    """It takes no others, and a perturbation is dense."""
    table = nn.Embedding(5, 4, sparse=True)
    opt = SAM(O.SparseAdam(table.parameters()), model=table)
    before = bits(table)
    with pytest.raises(ValueError, match="is sparse"):
        for objective in opt.passes():
            objective(table(torch.tensor([1, 2])), torch.tensor([0, 3])).backward()
    assert bits(table) == before
    opt = SAM(O.SparseAdam([{"params": table.parameters(), "rho": 0.0}]), model=table)
    for objective in opt.passes():
        objective(table(torch.tensor([1, 2])), torch.tensor([0, 3])).backward()
    opt.step()
    assert bits(table) != before


def reward(logits, target):
    return -cross_entropy(logits, target)


def penalty(logits, target):
    return -reward(logits, target)


def one_step(method, descent, maximize, **choices):
    (x, y), model = batches(1)[0], Net()
    base = O.SGD(model.parameters(), lr=0.1, maximize=maximize)
    opt = method(base, model=model, rho=RHO, descent=descent, **choices)
    for objective in opt.passes():
        objective(model(x), y).backward()
    opt.step()
    return model


def test_a_base_that_maximises_has_its_adversary_go_down():
    """To maximise R is to minimise -R, whose adversary climbs -grad R: eps = -rho grad R / ||grad R||.

    With the sign of SAM the perturbation would go where the base goes, and ask for *sharp* maxima.
    """
    model = one_step(SAM, reward, maximize=True)
    same(model, one_step(SAM, penalty, maximize=False))
    (x, y), theirs = batches(1)[0], Net()
    sharpness_aware_step(theirs, O.SGD(theirs.parameters(), lr=0.1), x, y, rho=RHO)  # descends cross-entropy
    same(model, theirs)


def test_a_lower_bound_of_errors_is_nothing_to_maximise():
    """Which way the other objective should then go is anyone's guess, so it is not guessed."""
    with pytest.raises(ValueError, match="maximize=True"):
        one_step(BiSAM, reward, maximize=True)


def test_an_optimizer_that_steps_in_backward_is_refused():
    """PyTorch's tutorial "optimizer step fused into backward": no gradient is left to climb, and w has moved."""
    model = Net()
    opt = SAM(O.SGD(model.parameters(), lr=0.1), model=model, rho=RHO)
    each = {p: O.SGD([p], lr=0.1) for p in model.parameters() if p.requires_grad}

    def step(param):
        each[param].step()
        each[param].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(step) for p in each]
    x, y = batches(1)[0]
    with pytest.raises(RuntimeError, match=r"backward\(\)"):
        for objective in opt.passes():
            objective(model(x), y).backward()
    for handle in handles:
        handle.remove()
    for objective in opt.passes():
        objective(model(x), y).backward()
    assert opt.last.perturbed


def test_other_hooks_on_gradients_are_welcome():
    """Engines count or clip there; what is refused is a weight that changes."""
    model, seen = Net(), []
    for p in model.parameters():
        p.requires_grad and p.register_post_accumulate_grad_hook(seen.append)
    opt = SAM(O.SGD(model.parameters(), lr=0.1), model=model, rho=RHO)
    run_steps(model, opt, batches(2))
    assert opt.last.perturbed
    assert seen


def test_an_embedding_that_renormalises_itself_is_welcome():
    """``max_norm`` writes to the weight in forward(), which is no step of an optimizer."""
    table = nn.Embedding(5, 4, max_norm=0.5)
    opt = SAM(O.SGD(table.parameters(), lr=0.1), model=table, rho=RHO)
    for objective in opt.passes():
        objective(table(torch.tensor([1, 2])), torch.tensor([0, 3])).backward()
    assert opt.last.perturbed


# -- optimizers with two modes -----------------------------------------------------------------------------------


def schedule_free(name, params):
    schedulefree = pytest.importorskip("schedulefree")
    if name == "sgd":
        return schedulefree.SGDScheduleFree(params, lr=0.5, warmup_steps=2)
    return schedulefree.AdamWScheduleFree(params, lr=0.01, warmup_steps=2)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_schedule_free_equals_the_textbook_and_resumes_from_eval_mode(name):
    data = batches(8)
    ours, theirs = Net(), Net()
    opt, base = (
        SAM(schedule_free(name, ours.parameters()), model=ours, rho=RHO),
        schedule_free(name, theirs.parameters()),
    )
    opt.train()
    base.train()
    run_steps(ours, opt, data[:4])
    for x, y in data[:4]:
        sharpness_aware_step(theirs, base, x, y, rho=RHO)
    same(ours, theirs)
    in_train_mode = bits(ours)
    opt.eval()
    base.eval()
    same(ours, theirs)
    assert bits(ours) != in_train_mode

    resumed = Net()
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    again = SAM(schedule_free(name, resumed.parameters()), model=resumed, rho=0.7)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    for model, optimizer in ((ours, opt), (resumed, again)):
        optimizer.train()
        run_steps(model, optimizer, data[4:])
        optimizer.eval()
    assert bits(ours) == bits(resumed)


def test_schedule_free_in_eval_mode_says_so():
    model = Net()
    opt = SAM(schedule_free("sgd", model.parameters()), model=model, rho=RHO)
    opt.eval()
    with pytest.raises(Exception, match="not in train mode"):
        run_steps(model, opt, batches(1))


def test_modes_of_a_base_without_modes_do_nothing():
    """So that a script need not ask which optimizer it has."""
    model = Net()
    opt = BiSAM(O.SGD(model.parameters(), lr=0.1), model=model)
    before = bits(model)
    opt.train()
    opt.eval()
    assert bits(model) == before


def test_eval_after_a_loop_that_was_left_sees_no_perturbation():
    model, (x, y) = Net(), batches(1)[0]
    opt = SAM(schedule_free("sgd", model.parameters()), model=model, rho=RHO)
    opt.train()
    run_steps(model, opt, batches(2))
    twin_model, twin = copy.deepcopy((model, opt))
    loop = opt.passes()  # held, as a progress bar holds it
    next(loop)(model(x), y).backward()
    next(loop)
    assert bits(model) != bits(twin_model)
    opt.eval()
    twin.eval()
    assert bits(model) == bits(twin_model)


# -- examples ----------------------------------------------------------------------------------------------------


def last_accuracy(monkeypatch, capsys, example, *arguments):
    """Run it in this process: importing torch once more would take longer than the example."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(sys, "argv", [example, *arguments])
    runpy.run_path(str(ROOT / "examples" / example), run_name="__main__")
    return float(capsys.readouterr().out.split()[-1])


@pytest.mark.parametrize("option", [None, "--bf16"])
def test_the_plain_loop_example_learns(option, monkeypatch, capsys):
    options = [option] if option else []
    assert last_accuracy(monkeypatch, capsys, "plain_loop.py", "--epochs", "2", *options) > 0.85


def test_the_schedule_free_example_learns(monkeypatch, capsys):
    pytest.importorskip("schedulefree")
    assert last_accuracy(monkeypatch, capsys, "schedule_free.py", "--epochs", "3") > 0.85
