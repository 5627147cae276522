"""What ``opt.passes()`` returns: an iterator over objectives that survives being left."""

import inspect
import weakref
from collections.abc import Generator, Iterator

import torch

from .context import StepContext
from .objective import Objective

__all__ = ["Passes"]


class Passes(Iterator[Objective]):
    """The passes of one gradient; the weights are back when the loop is over, however it ends.

    Args:
        steps: yields the objectives.
        context: where the step happens.
    """

    def __init__(self, steps: Generator[Objective, None, None], context: StepContext) -> None:
        self._steps = steps
        self._context = context
        self._ended_by: str | None = None
        self._grad_mode = torch.is_grad_enabled()

    def __next__(self) -> Objective:
        """Finish the running pass and start the next one.

        Raises:
            RuntimeError: another method of the optimizer has ended this loop.
        """
        if self._ended_by is not None:
            raise RuntimeError(
                f"{self._ended_by} was called inside `for objective in opt.passes()` and has ended the loop, so its "
                "gradient is gone: call it after the loop"
            )
        if self._context.live_loop is None:
            self._context.loop = weakref.ref(self)
        self._grad_mode = torch.is_grad_enabled()
        try:
            return next(self._steps)
        except StopIteration:
            raise
        except BaseException:
            self._put_back()
            raise

    @property
    def live(self) -> bool:
        """Whether a pass has begun and the loop has not ended."""
        return inspect.getgeneratorstate(self._steps) == inspect.GEN_SUSPENDED

    @property
    def at_descent(self) -> bool:
        """Whether the running pass is the last one."""
        running = self._context.objective
        return running is not None and not running.is_ascent

    @property
    def settled(self) -> bool:
        """Whether the running pass may end here and leave the whole gradient behind."""
        running = self._context.objective
        return running is not None and not running.is_ascent and running.settled and not running.lacks_backward

    def finish(self) -> None:
        """End the last pass as the loop itself would."""
        next(self, None)

    def leave(self, by: str) -> None:
        """End the loop early: weights, gradients and buffers go back."""
        self._ended_by = by
        self._close()

    def _close(self) -> None:
        self._grad_mode = torch.is_grad_enabled()
        try:
            self._steps.close()
        finally:
            self._put_back()

    def _put_back(self) -> None:
        """Finish what an interruption in the middle of our own lines has left; mostly there is nothing to do."""
        torch.set_grad_enabled(self._grad_mode)
        self._context.recover()

    def __del__(self) -> None:
        """Restore where the loop was left by break or an exception."""
        if self.live:
            self._close()
