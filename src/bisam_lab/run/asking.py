"""What a run asks of whoever drives it: steps, forward and backward passes.

A run is a generator. It yields what it asks for, and goes on with the answer; everything else it does itself. So one
driver can answer a run :func:`alone`, and another can answer several runs together, with one pass over all of them
(:mod:`bisam_lab.stack`), and the run is the same code.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from .fabric import Fabric

__all__ = ["Asking", "Backward", "Clock", "Forward", "Request", "alone", "answered"]

T = TypeVar("T")
P = ParamSpec("P")

#: Tells the seconds that a run has taken. Runs at the same time in one process share the seconds that pass.
Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Forward:
    """Asks for a forward pass. The answer is the output (B, classes), with its graph while the network trains.

    Attributes:
        net: the network as the engine runs it, in training or evaluation mode.
        x: inputs (B, ...).
        fabric: the engine.
    """

    net: nn.Module
    x: Tensor
    fabric: Fabric

    @property
    def model(self) -> nn.Module:
        """The bare network."""
        model = self.net.module
        assert isinstance(model, nn.Module)
        return model

    def answer(self) -> Tensor:
        """Return the network's output."""
        with torch.set_grad_enabled(self.net.training):
            output: Tensor = self.net(self.x)
        return output


@dataclass(frozen=True, eq=False)
class Backward:
    """Asks that a loss's gradient be added to every ``p.grad``. The answer is None.

    Attributes:
        loss: a scalar.
        fabric: the engine.
    """

    loss: Tensor
    fabric: Fabric

    def answer(self) -> None:
        """Compute the gradient."""
        self.fabric.backward(self.loss)


class Request(Protocol):
    """What a run asks for: a pass, or a step (:class:`bisam_lab.run.steps.Step`)."""

    def answer(self) -> Any:
        """Return the answer, computed for this run alone."""


#: A run, or a part of one: it asks, and ends with a T.
Asking: TypeAlias = Generator[Request, Any, T]


def alone(work: Asking[T]) -> T:
    """Answer each request at once, and return what the work ends with."""
    resume = partial(next, work)
    while True:
        try:
            request = resume()
        except StopIteration as ended:
            result: T = ended.value
            return result
        try:
            resume = partial(work.send, request.answer())
        except BaseException as error:  # noqa: BLE001 the run must see it, to leave its weights as they were
            resume = partial(work.throw, error)


def answered(asking: Callable[P, Asking[T]]) -> Callable[P, T]:
    """Return the function that does the work :func:`alone`."""

    @wraps(asking)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return alone(asking(*args, **kwargs))

    return run
