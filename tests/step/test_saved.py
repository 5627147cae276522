"""What a step gives back: weights bit for bit, gradients, the random state, however it ends."""

import contextlib
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bisam import SAM, BiSAM
from bisam._vectors.host import as_on_accelerator
from bisam.cadence import Every
from bisam.combine import Blend
from bisam.testing import Net, batches, bits, run_steps
from tests.steps import X, Y, sgd, turn

# -- weights -----------------------------------------------------------------------------------------------------------


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
        for objective in opt.passes():
            objective(model.head(model.norm(model.first(X)).float()), Y).backward()
            if not objective.is_ascent:
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
        for objective in opt.passes():
            if zero == 0.0:
                assert bits(layer) == before
            (zero * layer.bias.sum() + 0 * objective(torch.randn(2, 3), torch.tensor([0, 1]))).backward()
        torch.set_flush_denormal(False)
        assert bits(layer) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_accelerator])
def test_weights_come_back_where_their_data_was_rebound_between_the_passes(dtype, where):
    params = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, dtype=dtype))]
    before = [p.detach().clone() for p in params]
    opt = SAM(torch.optim.SGD(params, lr=0.1), descent=lambda: sum(p.abs().double().square().sum() for p in params))
    with where():
        for objective in opt.passes():
            for p in params:
                p.data = p.data.clone()  # as a module that moves, or is packed into one buffer
            objective().backward()
    assert opt.last.perturbed
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


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


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_one_pass_steps_give_gradients_back_too():
    model = Net()
    opt = BiSAM(sgd(model), model=model, cadence=Every(2))
    run_steps(model, opt, batches(1))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for objective in opt.passes():
        objective(model(X), Y).backward()
        break
    assert all((p.grad == 1).all() for p in model.parameters())
    with pytest.raises(RuntimeError, match="without a call"):
        for _ in opt.passes():
            model(X).sum().backward()
    assert all((p.grad == 1).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python reports a failing close() so
def test_gradients_come_back_even_where_a_buffer_cannot(monkeypatch):
    model = Net()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    opt, before = SAM(sgd(model), model=model), bits(model)

    def broken(self):
        raise RuntimeError("no such buffer")

    monkeypatch.setattr("bisam._step.forward_state.ForwardState.restore", broken)
    with pytest.raises(MemoryError):
        for objective in opt.passes():
            objective(model(X), Y).backward()
            if not objective.is_ascent:
                raise MemoryError
    assert bits(model) == before
    assert (model.head.weight.grad == 1).all()


def test_gradients_from_zero_grad_false_keep_their_storage():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    pointers = [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
    opt.zero_grad(set_to_none=False)
    turn(opt, model)
    assert [p.grad.data_ptr() for p in model.parameters() if p.grad is not None] == pointers


def test_sparse_gradients_carried_into_a_group_without_radius():
    model = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 3))
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[1].parameters()}]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model)
    x, y = torch.tensor([1, 2]), torch.tensor([0, 1])
    nn.functional.cross_entropy(model(x), y).backward()
    before = model[0].weight.grad.to_dense().clone()
    for objective in opt.passes():
        objective(model(x), y).backward()
        if not objective.is_ascent:
            break
    torch.testing.assert_close(model[0].weight.grad.to_dense(), before)
    with pytest.raises(ValueError, match="need dense gradients"):
        for objective in SAM(torch.optim.SGD([g | {"lr": 0.1} for g in groups], lr=0.1), combine=Blend(0.5)).passes():
            objective(model(x), y).backward()


def test_parameters_of_another_optimizer_gain_the_last_gradient_alone():
    """GANs, a separate head, Muon for matrices: with model= the ascent pass leaves nothing behind in them."""
    model, plain = Net(), Net()
    opt = BiSAM(torch.optim.SGD(model.first.parameters(), lr=0.1), model=model, rho=1e-12)
    turn(opt, model)
    nn.functional.cross_entropy(plain(X), Y).backward()
    torch.testing.assert_close(model.head.weight.grad, plain.head.weight.grad, rtol=1e-6, atol=1e-9)


# -- randomness --------------------------------------------------------------------------------------------------------


def test_same_dropout_draws_the_same_masks_in_both_passes():
    for same in (True, False):
        model = Net(dropout=0.5)
        opt = SAM(sgd(model), model=model, rho=1e-9, same_dropout=same)
        values = []
        for objective in opt.passes():
            objective(model(X), Y).backward()
            values.append(objective.value.item())
        assert math.isclose(values[0], values[1], rel_tol=1e-6) is same
