"""Several runs in turn: each goes on to the next pass that it asks for, and all of these are answered at once."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..run.asking import Asking, Backward, Forward, Request
from ..run.steps import Step, Steps
from .lockstep import Lockstep, kind_of, moment_of
from .network import StackedNetwork

__all__ = ["RunClock", "together"]

T = TypeVar("T")


class RunClock:
    """The time of one of several runs: its own, and its share of what is done for several of them at once."""

    def __init__(self) -> None:
        self._told, self._since = 0.0, math.nan

    def __call__(self) -> float:
        """Return the seconds that the run has had so far."""
        return self._told if math.isnan(self._since) else self._told + time.perf_counter() - self._since

    def add(self, seconds: float) -> None:
        """Add the run's share of a time."""
        self._told += seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run within the block."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._told, self._since = self(), math.nan


def together(makers: Sequence[Callable[..., Asking[T]]]) -> list[T]:
    """Do several works, and return what each ends with.

    Steps, backward passes and forward passes that are asked for at one time are each taken together where they are of
    one kind. Which works take part changes from time to time: one that perturbs asks for more passes, and one that has
    ended asks for none. Each has random numbers and a clock of its own.

    Args:
        makers: each is called as ``maker(clock=...)`` and returns a work. Their networks have one architecture. An
            error of one ends all: let them catch what is theirs alone.
    """
    members = [_Member(make) for make in makers]
    passes = _Passes()
    live = members
    try:
        while live:
            for member in live:
                member.go_on()
            live = [member for member in live if member.request is not None]
            passes.answer(live)
    finally:
        passes.release()
        for member in members:
            member.work.close()
    return [member.result for member in members]


class _Member(Generic[T]):
    """One of the works.

    Attributes:
        clock: its time.
        work: the generator.
        request: what it asks for; None when it has ended.
        resume: goes on with the answer, or with the error that came instead of it.
        result: what it has ended with.
    """

    def __init__(self, make: Callable[..., Asking[T]]) -> None:
        self.clock = RunClock()
        self.work = work = make(clock=self.clock)
        self.request: Request | None = None
        self.resume: Callable[[], Request] = partial(next, work)
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
            with self.clock.running():
                return call()
        finally:
            self._random = _random_state()


class _Passes:
    """Answers what works ask for."""

    def __init__(self) -> None:
        self._network: StackedNetwork | None = None
        self._kinds: dict[int, Any] = {}
        self._locksteps: dict[int, Lockstep] = {}  # by the steps of each of its runs

    def answer(self, members: Sequence[_Member[Any]]) -> None:
        """Answer every member's request."""
        alike: dict[Any, list[tuple[_Member[Any], Forward]]] = {}
        steps: dict[Any, list[tuple[_Member[Any], Step]]] = {}
        backwards: list[tuple[_Member[Any], Backward]] = []
        for member in members:
            request = member.request
            if isinstance(request, Forward):
                mode = (request.net.training, request.x.shape, request.x.dtype)
                alike.setdefault(mode, []).append((member, request))
            elif isinstance(request, Backward):
                backwards.append((member, request))
            elif isinstance(request, Step):
                key = (self._kind(request.steps), moment_of(request.steps), request.batch.x.shape)
                steps.setdefault(key, []).append((member, request))
        for (kind, *_), asked in steps.items():
            self._step(kind, asked)
        if len(backwards) == 1:
            backwards[0][0].answer_alone()
        elif backwards:
            _answer_all([m for m, _ in backwards], lambda: _backward([request.loss for _, request in backwards]))
        for group in alike.values():
            if len(group) == 1:
                group[0][0].answer_alone()
            else:
                self._forward(group)

    def release(self) -> None:
        """Give the runs that have stepped in lockstep tensors of their own again."""
        for lockstep in dict.fromkeys(self._locksteps.values()):
            lockstep.release()
        self._locksteps.clear()

    def _step(self, kind: Any, asked: Sequence[tuple[_Member[Any], Step]]) -> None:
        """Take a step of several runs of one kind, or let each take its own."""
        together = kind is not None and len(asked) > 1
        for _, request in asked:
            self._leave(request.steps, None if not together else {id(other.steps) for _, other in asked})
        if not together:
            for member, _ in asked:
                member.resume = partial(member.work.send, None)
            return
        order = sorted(asked, key=lambda pair: repr(pair[1].steps.opt.estimator.ascent))
        lockstep = self._locksteps.get(id(asked[0][1].steps))
        if lockstep is None:
            runs = [request.steps for _, request in order]
            lockstep = Lockstep(runs, self._network_of(runs[0].model))
            self._locksteps.update({id(steps): lockstep for steps in runs})
        requests = {id(request.steps): request for _, request in asked}
        members = {id(request.steps): member for member, request in asked}
        runs, step = lockstep.runs, lockstep.step
        _answer_all([members[id(s)] for s in runs], lambda: step([requests[id(s)].batch for s in runs]))

    def _kind(self, steps: Steps) -> Any:
        """Return the kind of a run, looked up once, after its first step; None: it steps by itself."""
        if not steps.taken:
            return None
        if id(steps) not in self._kinds:
            self._kinds[id(steps)] = kind_of(steps)
        return self._kinds[id(steps)]

    def _leave(self, steps: Steps, company: set[int] | None) -> None:
        """Break up the lockstep of a run, if it is not of this company."""
        lockstep = self._locksteps.get(id(steps))
        if lockstep is not None and {id(other) for other in lockstep.runs} != company:
            lockstep.release()
            for other in lockstep.runs:
                del self._locksteps[id(other)]

    def _network_of(self, model: nn.Module) -> StackedNetwork:
        if self._network is None:
            self._network = StackedNetwork(model)
        return self._network

    def _forward(self, group: Sequence[tuple[_Member[Any], Forward]]) -> None:
        requests = [request for _, request in group]
        network = self._network_of(requests[0].model)
        _answer_all([member for member, _ in group], lambda: network(requests))


def _answer_all(members: Sequence[_Member[Any]], call: Callable[[], Sequence[Any]]) -> None:
    """Answer members with what one call returns for each of them, or all with its error."""
    began = time.perf_counter()
    try:
        answers = call()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # or the time would be that of whoever waits for the device next
    except Exception as error:  # noqa: BLE001 each run must see it
        for member in members:
            member.resume = partial(member.work.throw, error)
        return
    seconds = time.perf_counter() - began
    for member, answer in zip(members, answers, strict=True):
        member.clock.add(seconds / len(members))
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
