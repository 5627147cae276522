"""A loop that is left early: what comes back at once, and what must not be seen later."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bisam._step.objective import Objective
from bisam.optimizer import SharpnessAware

from .models import Make, Net, batches, bits

__all__ = ["check_early_exit", "check_interrupted_loops"]

Turn = Callable[[Objective], None]
Batch = tuple[Tensor, Tensor]


def check_early_exit(make: Make) -> None:
    """Breaking out, an error, Ctrl-C and a held iterator give weights and gradients back, in every pass."""
    x, y = batches(1)[0]
    counted = Net()
    passes = sum(objective(counted(x), y).backward() is None for objective in make(counted).passes())
    for leave in (_leave_by_break, _leave_by_error, _leave_by_interrupt, _leave_it_held):
        for stop in range(passes):
            model = Net()
            opt, before = make(model), bits(model)
            model.head.weight.grad = torch.full_like(model.head.weight, 3.0)

            def turn(objective: Objective, model: nn.Module = model) -> None:
                objective(model(x), y).backward()

            leave(opt, turn, stop)
            assert bits(model) == before, f"weights differ after {leave.__name__} in pass {stop}"
            if leave is not _leave_it_held:  # that one ends in zero_grad()
                kept = model.head.weight.grad
                assert kept is not None, "the gradient that was there before is gone"
                assert bool((kept == 3.0).all()), "the gradient that was there before has changed"
                assert model.first.weight.grad is None, "a gradient is left over"


def check_interrupted_loops(make: Make) -> None:
    """Loops that are left early leave no trace: the steps and the state are, to the bit, those of a run without them.

    Before each step, and between its two micro-batches, loops over another batch are left in every pass, by ``break``,
    an error, Ctrl-C and a held iterator. What a choice writes with ``memory.write`` and ``memory.write_number`` counts
    only from the end of the loop on, so it passes; what it changes in place, or counts by itself, does not.
    """
    undisturbed, counts = _train(make, ())
    disturbed, _ = _train(make, counts)
    for step, ((model, state), (other_model, other)) in enumerate(zip(undisturbed, disturbed, strict=True)):
        where = f"after step {step}"
        assert bits(model) == bits(other_model), f"{where} weights differ from those of a run without interrupted loops"
        _same_state(state, other, where)


def _train(make: Make, interrupt: Sequence[int]) -> tuple[list[tuple[nn.Module, dict[str, Any]]], list[int]]:
    """Take five steps of two micro-batches; return model and state after each, and the passes of each micro-batch.

    Args:
        make: makes the optimizer.
        interrupt: for each micro-batch, the number of passes in which loops are left before it; empty for none.
    """
    model, data, others = Net(), batches(10), batches(10, seed=2)
    opt = make(model)
    states: list[tuple[nn.Module, dict[str, Any]]] = []
    counts: list[int] = []
    for number, (x, y) in enumerate(data):
        first = number % 2 == 0
        if interrupt:
            _leave_in_each_pass(model, opt, others[number], interrupt[number], clears=first)
        counts.append(sum(objective(model(x), y).backward() is None for objective in opt.passes()))
        if not first:
            opt.step()
            opt.zero_grad()
            states.append(copy.deepcopy((model, opt.state_dict())))
    return states, counts


def _leave_in_each_pass(model: nn.Module, opt: SharpnessAware, batch: Batch, passes: int, *, clears: bool) -> None:
    """Leave loops in each of their passes.

    A held iterator is left in all but the last pass, because ``zero_grad()`` after the last one ends it as finished. It
    clears the gradients, so only where ``clears`` allows that.
    """
    x, y = batch

    def turn(objective: Objective) -> None:
        objective(model(x), y).backward()

    for stop in range(passes):
        for leave in (_leave_by_break, _leave_by_error, _leave_by_interrupt):
            leave(opt, turn, stop)
        if clears and stop < passes - 1:
            _leave_it_held(opt, turn, stop)


def _same_state(ours: Any, theirs: Any, where: str) -> None:
    """Compare two state dicts, tensors bit for bit."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), f"{where} interrupted loops have left {ours.keys() ^ theirs.keys()}"
        for key, value in ours.items():
            _same_state(value, theirs[key], f"{where}, {key!r}" if isinstance(key, str) else where)
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), f"{where} is longer or shorter after interrupted loops"
        for value, other in zip(ours, theirs, strict=True):
            _same_state(value, other, where)
    else:
        equal = torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
        assert equal, f"{where} is {theirs}, and without interrupted loops {ours}"


def _leave_by_break(opt: SharpnessAware, turn: Turn, stop: int) -> None:
    for objective in opt.passes():
        turn(objective)
        if objective.index == stop:
            break


def _leave_by_error(opt: SharpnessAware, turn: Turn, stop: int) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for objective in opt.passes():
            turn(objective)
            if objective.index == stop:
                raise ZeroDivisionError


def _leave_by_interrupt(opt: SharpnessAware, turn: Turn, stop: int) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        for objective in opt.passes():
            turn(objective)
            if objective.index == stop:
                raise KeyboardInterrupt


def _leave_it_held(opt: SharpnessAware, turn: Turn, stop: int) -> None:
    held = opt.passes()
    for _ in range(stop + 1):
        turn(next(held))
    opt.zero_grad()
