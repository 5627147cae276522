"""The processes that train one run together: who takes which examples, and what they tell each other.

What they tell each other here are flags and numbers on the CPU, over gloo, so that no GPU waits for them. Gradients and
weights are the engine's.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import RecipeError
from .fabric import Fabric
from .place import LostError

__all__ = ["Part", "Team", "losing"]

T = TypeVar("T")
#: What gloo, NCCL and their store say where a process at the other end is gone.
_LOST = re.compile(
    "Connection closed by peer|Connection reset|Connection refused|Broken pipe|Read error|Write error|"
    "Timed out waiting|timed out|unhandled system error|remote process exited|NCCL communicator was aborted|"
    "[Ff]ailed to recv"
)


@contextlib.contextmanager
def losing() -> Iterator[None]:
    """Say in a sentence that another process has ended, or what DDP cannot train, where torch says it in a page.

    Raises:
        LostError: another process has ended.
        RecipeError: weights of the network take no part in the loss, under DDP.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if "parameters that were not used in producing loss" in str(error):
            raise RecipeError(
                "engine.strategy=ddp: some weights of the network take no part in the loss, and DDP waits for their "
                "gradients: set engine.strategy=fsdp, or freeze them"
            ) from None
        if isinstance(error, LostError) or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise LostError(
            "another process of this run has ended: the same command goes on from the last checkpoint"
        ) from None


@dataclass(frozen=True)
class Part:
    """A process's part of a batch.

    Attributes:
        rows: which examples it takes.
        share: of the batch's examples that it holds; 0 where it only keeps pace, and borrows examples.
    """

    rows: slice
    share: float


class Team:
    """The processes of a run. One alone tells nobody anything.

    Args:
        fabric: the engine, launched.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.size = fabric.global_rank, fabric.world_size
        self.group: Any = None
        if self.size > 1 and dist.get_backend() != "gloo":
            self.group = dist.new_group(backend="gloo")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def part(self, examples: int) -> Part:
        """Return this process's part of a batch of so many examples: a run of neighbours, as long as the others'.

        Each part has two at least, for BatchNorm needs two. So of a small batch some processes have none: they borrow
        the first ones, and their gradient counts nothing.
        """
        if self.size == 1:
            return Part(slice(0, examples), 1.0)
        parts = min(self.size, max(1, examples // 2))
        if self.rank >= parts:
            return Part(slice(0, min(2, examples)), 0.0)
        least, more = divmod(examples, parts)
        start = self.rank * least + min(self.rank, more)
        rows = slice(start, start + least + (self.rank < more))
        return Part(rows, (rows.stop - rows.start) / examples)

    def largest(self, *numbers: int) -> list[int]:
        """Return the largest of each number over all processes: one small message."""
        if self.size == 1:
            return list(numbers)
        told = torch.tensor(numbers)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.group)
        return [int(number) for number in told]

    def summed(self, numbers: Tensor) -> Tensor:
        """Return the sum over all processes; on the CPU, if there are several."""
        if self.size == 1:
            return numbers
        total = numbers.detach().cpu().clone()
        dist.all_reduce(total, group=self.group)
        return total

    def gathered(self, value: T) -> list[T]:
        """Return every process's value, in the order of their numbers."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        self.largest(0)

    def all_or_none(self, work: Callable[[], T], *errors: type[Exception]) -> T:
        """Do something in every process. Where one fails, all do, with the first one's error.

        Args:
            work: what to do.
            errors: kinds that are told to the others, beside :class:`~bisam_lab.errors.RecipeError`.

        Raises:
            RecipeError: one has failed.
        """
        told: tuple[type[Exception], ...] = (RecipeError, *errors)
        result: list[T] = []
        failed: Exception | None = None
        try:
            result.append(work())
        except told as caught:
            failed = caught
        for other in self.gathered(failed):
            if isinstance(other, Exception):
                raise other
        return result[0]

    def same_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's running statistics, before the network is evaluated or saved."""
        if self.size == 1:
            return
        with torch.no_grad():
            for buffer in model.buffers():
                told = buffer.detach().cpu().clone()
                dist.broadcast(told, 0, group=self.group)
                buffer.copy_(told)
