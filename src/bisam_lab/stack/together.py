"""Several runs in turn: each goes on to the next pass that it asks for, and all of these are answered at once."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..run.asking import Asking, Backward, Forward
from .network import StackedNetwork

__all__ = ["SharedClock", "together"]

T = TypeVar("T")


class SharedClock:
    """The time of runs that go on in turn: of each second, each of n runs has its n-th part."""

    def __init__(self) -> None:
        self._told, self._since, self._runs = 0.0, time.perf_counter(), 1

    def __call__(self) -> float:
        """Return the seconds that a run has had so far."""
        now = time.perf_counter()
        self._told += (now - self._since) / self._runs
        self._since = now
        return self._told

    def share(self, runs: int) -> None:
        """Share the time from now on among so many runs."""
        self()
        self._runs = max(1, runs)


def together(works: Sequence[Asking[T]], clock: SharedClock) -> list[T]:
    """Do several works, and return what each ends with.

    All backward passes that are asked for at one time are one, and so are all forward passes of networks in one mode
    over inputs of one shape. Which works take part changes from pass to pass: one that perturbs asks for more of them,
    and one that has ended asks for none. Each has random numbers of its own.

    Args:
        works: their networks have one architecture. An error of one ends all: let them catch what is theirs alone.
        clock: of all of them.
    """
    members = [_Member(work) for work in works]
    passes = _Passes()
    live = members
    try:
        while live:
            clock.share(len(live))
            for member in live:
                member.go_on()
            live = [member for member in live if member.request is not None]
            passes.answer(live)
    finally:
        for member in members:
            member.work.close()
    return [member.result for member in members]


class _Member(Generic[T]):
    """One of the works.

    Attributes:
        work: the generator.
        request: what it asks for; None when it has ended.
        resume: goes on with the answer, or with the error that came instead of it.
        result: what it has ended with.
    """

    def __init__(self, work: Asking[T]) -> None:
        self.work = work
        self.request: Forward | Backward | None = None
        self.resume: Callable[[], Forward | Backward] = partial(next, work)
        self.result: T
        self._random = _random_state()

    def go_on(self) -> None:
        """Go on to the next request, or to the end."""
        self._with_own_numbers(self._go_on)

    def answer_alone(self) -> None:
        """Answer its request without the others."""
        assert self.request is not None
        self.answer_with(partial(self._with_own_numbers, self.request.answer))

    def answer_with(self, call: Callable[[], Any]) -> None:
        """Go on with what ``call`` returns, next time, or with the error that it raises."""
        try:
            self.resume = partial(self.work.send, call())
        except Exception as error:  # noqa: BLE001 the run must see it, to leave its weights as they were
            self.resume = partial(self.work.throw, error)

    def _go_on(self) -> None:
        try:
            self.request = self.resume()
        except StopIteration as ended:
            self.request, self.result = None, ended.value

    def _with_own_numbers(self, call: Callable[[], Any]) -> Any:
        _set_random_state(self._random)
        try:
            return call()
        finally:
            self._random = _random_state()


class _Passes:
    """Answers what works ask for."""

    def __init__(self) -> None:
        self._network: StackedNetwork | None = None

    def answer(self, members: Sequence[_Member[Any]]) -> None:
        """Answer every member's request."""
        alike: dict[Any, list[tuple[_Member[Any], Forward]]] = {}
        backwards: list[tuple[_Member[Any], Backward]] = []
        for member in members:
            request = member.request
            if isinstance(request, Forward):
                key = (request.net.training, request.x.shape, request.x.dtype)
                alike.setdefault(key, []).append((member, request))
            elif isinstance(request, Backward):
                backwards.append((member, request))
        if len(backwards) == 1:
            backwards[0][0].answer_alone()
        elif backwards:
            _answer_all([m for m, _ in backwards], lambda: _backward([request.loss for _, request in backwards]))
        for group in alike.values():
            if len(group) == 1:
                group[0][0].answer_alone()
            else:
                self._forward(group)

    def _forward(self, group: Sequence[tuple[_Member[Any], Forward]]) -> None:
        requests = [request for _, request in group]
        if self._network is None:
            self._network = StackedNetwork(requests[0].model)
        network = self._network
        _answer_all([member for member, _ in group], lambda: network(requests))


def _answer_all(members: Sequence[_Member[Any]], call: Callable[[], Sequence[Any]]) -> None:
    """Answer members with what one call returns for each of them, or all with its error."""
    try:
        answers = call()
    except Exception as error:  # noqa: BLE001 each run must see it
        for member in members:
            member.resume = partial(member.work.throw, error)
        return
    for member, answer in zip(members, answers, strict=True):
        member.resume = partial(member.work.send, answer)


def _backward(losses: Sequence[Tensor]) -> list[None]:
    torch.autograd.backward(losses)
    return [None] * len(losses)


def _random_state() -> list[Tensor]:
    """Return the states of torch's generators, on the CPU and on the current CUDA device."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def _set_random_state(state: Sequence[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda)
