"""Ctrl-C at every line of ours: ``python -m tests.interrupts`` tries them all, the suite a sample.

With ``--signals 2000`` that many real signals come instead, each at a random moment of a step.

A step runs under ``sys.settrace``, which raises ``KeyboardInterrupt`` before the n-th line of the library, of its
context managers or of torch's. Afterwards the weights are w, the gradients are those from before or the whole gained
ones, and grad mode is on.
"""

import argparse
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import bisam
from bisam import SAM, BiSAM
from bisam.combine import Surrogate
from bisam.testing import Net, bits
from tests.steps import X, Y, sgd

__all__ = ["PROGRAMS", "lines", "outcome"]

_OURS = (str(Path(bisam.__file__).parent), "contextlib.py", "grad_mode.py", "_contextlib.py")

#: A way to build the optimizer, and whether the loop is left by an error in its last pass.
PROGRAMS: dict[str, tuple[Callable[..., Any], bool]] = {
    "sam": (lambda base, model: SAM(base, model=model, rho=0.1), False),
    "sam left": (lambda base, model: SAM(base, model=model, rho=0.1), True),
    "bisam same dropout": (lambda base, model: BiSAM(base, model=model, rho=0.1, same_dropout=True), False),
    "combined": (lambda base, model: SAM(base, model=model, rho=0.1, combine=Surrogate(0.4)), False),
    "combined left": (lambda base, model: SAM(base, model=model, rho=0.1, combine=Surrogate(0.4)), True),
    "plain step": (lambda base, model: SAM(base, model=model, rho=0.0), True),
}


class _At:
    """A trace function that raises before the n-th line, once; -1 only counts."""

    def __init__(self, number: int) -> None:
        self.number, self.seen, self.where = number, 0, ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS[0]) and not frame.f_code.co_filename.endswith(_OURS[1:]):
            return None
        if event == "line":
            if self.seen == self.number:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
            self.seen += 1
        return self


def _run(program: str, number: int, *, to_the_end: bool = False) -> tuple[_At, Any, Any, list[bytes]]:
    make, left = PROGRAMS[program]
    left = left and not to_the_end
    model = Net()
    opt, before = make(sgd(model), model), bits(model)
    model.head.weight.grad = torch.full_like(model.head.weight, 3.0)
    at = _At(number)
    sys.settrace(at)
    try:
        for objective in opt.passes():
            objective(model(X), Y).backward()
            if left and not objective.is_ascent:
                raise ZeroDivisionError
    except (KeyboardInterrupt, ZeroDivisionError):
        pass
    finally:
        sys.settrace(None)
    return at, opt, model, before


def lines(program: str) -> int:
    """Return how many lines of ours a program runs."""
    return _run(program, -1)[0].seen


def outcome(program: str, number: int) -> tuple[str, str]:
    """Interrupt a program before its n-th line.

    Returns:
        What came of it: "back", "back at the next call", or what is wrong; and the line.
    """
    _, _, clean, _ = _run(program, -1, to_the_end=True)
    whole = [None if p.grad is None else p.grad.clone() for p in clean.parameters()]
    at, opt, model, before = _run(program, number)
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        return "grad mode is off", at.where
    result = "back"
    if bits(model) != before or not _gradients_are_right(model, whole):
        result = "back at the next call"
        opt.state_dict()
    if bits(model) != before:
        return "the weights are not w", at.where
    if not _gradients_are_right(model, whole):
        return "a gradient is left over", at.where
    return result, at.where


def _gradients_are_right(model: Any, whole: list[Any]) -> bool:
    ours = [p.grad for p in model.parameters()]
    earlier = [torch.full_like(p, 3.0) if p is model.head.weight else None for p in model.parameters()]
    return _equal(ours, earlier) or _equal(ours, whole)


def _equal(ours: list[Any], theirs: list[Any]) -> bool:
    return all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in zip(ours, theirs, strict=True)
    )


def struck(program: str, after: float) -> str:
    """Interrupt a program by a real signal ``after`` so many seconds, and say what came of it."""
    make, _ = PROGRAMS[program]
    model = Net()
    opt, before = make(sgd(model), model), bits(model)

    result = "missed"
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        for objective in opt.passes():
            objective(model(X), Y).backward()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        result = "back"
    if bits(model) != before:
        opt.state_dict()
        result = "back at the next call"
    return "the weights are not w" if bits(model) != before or not torch.is_grad_enabled() else result


def main() -> int:
    """Try every line of every program, or real signals; return how many are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=0, help="real signals at random moments instead of every line")
    asked = parser.parse_args().signals
    sys.unraisablehook = lambda unraisable: None  # an interrupt inside __del__ can only be printed
    wrong = 0
    if asked:
        moments, names = random.Random(0), list(PROGRAMS)
        struck(names[0], 10.0)  # the first step of a process takes longer
        tally = Counter(struck(names[n % len(names)], moments.uniform(1e-4, 2.5e-3)) for n in range(asked))
        print(dict(tally))
        return tally["the weights are not w"]
    for program in PROGRAMS:
        count = lines(program)
        found = [outcome(program, number) for number in range(count)]
        tally = Counter(result for result, _ in found)
        print(f"{program}: {count} lines, {dict(tally)}")
        for result, where in sorted(set(found)):
            if not result.startswith("back"):
                print(f"    {result}: {where}")
        wrong += sum(n for result, n in tally.items() if not result.startswith("back"))
    return wrong


if __name__ == "__main__":
    raise SystemExit(bool(main()))
