"""What ``opt.passes()`` hands to the loop: one objective a pass, and an iterator that survives being left."""

import inspect
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

__all__ = ["Objective", "Passes", "StepStats"]


class Objective:
    """The loss function of one pass: call it like any loss, ``objective(model(x), y).backward()``.

    Attributes:
        loss: the ascent or descent objective that it calls.
        index: number of the pass within the step, from 0.
        is_ascent: whether this pass comes before the climb. Count metrics where ``index`` is 0: every step has that
            pass, over the whole batch.
        value: what the last call returned, detached; None before the first call.
        output: what the last call was given first, the model's output, detached; None where that is no tensor.
    """

    def __init__(self, index: int, loss: Callable[..., Tensor], *, is_ascent: bool, must_be_called: bool) -> None:
        self.index = index
        self.is_ascent = is_ascent
        self.value: Tensor | None = None
        self.output: Tensor | None = None
        self.loss = loss
        self._must_be_called = must_be_called
        self._over = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of (output, target), or of whatever the objective takes.

        Raises:
            RuntimeError: the loop that yielded this objective has ended.
        """
        if self._over:
            raise RuntimeError(
                "this objective's pass is over: call it inside its own turn of `for objective in opt.passes()`, and "
                "call zero_grad(), state_dict() and passes() outside of that loop, because they end it"
            )
        value = self.loss(*args, **kwargs)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"objective {self.loss!r} returned {type(value).__name__}: it must return a tensor, the loss"
            )
        self.output = args[0].detach() if args and isinstance(args[0], Tensor) else None
        self.value = value.detach()
        return value

    def record(self, value: Tensor) -> Tensor:
        """Take ``value`` as this pass's loss, computed elsewhere: by an engine, or by a model that returns its loss.

        Returns:
            ``value`` itself, to be followed by ``backward()``.
        """
        self.value = value.detach()
        return value

    def finish(self) -> None:
        """End the pass.

        Raises:
            RuntimeError: the objective was never called although the two passes differ.
        """
        self._over = True
        if self._must_be_called and self.value is None:
            what = "ascent" if self.is_ascent else "descent"
            raise RuntimeError(
                f"pass {self.index} ended without a call of its {what} objective, so its gradient belongs to another "
                "loss: write `objective(model(x), y).backward()` with the objective that passes() yields (in a "
                "closure: opt.objective), or make ascent and descent the same objective"
            )

    def expire(self) -> None:
        """Refuse calls from now on."""
        self._over = True

    @property
    def settled(self) -> bool:
        """Whether the pass may end here."""
        return self.value is not None or not self._must_be_called

    def __repr__(self) -> str:
        return f"Objective(index={self.index}, is_ascent={self.is_ascent}, loss={self.loss!r})"

    # -- people take it for the number that it returns -------------------------------------------------------------

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("item", "backward", "detach", "cpu", "mean", "data", "grad_fn"):
            raise AttributeError(f"objective.{name}: {self._remedy}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __float__(self) -> NoReturn:
        raise TypeError(f"float(objective): {self._remedy}")

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"format(objective, {spec!r}): {self._remedy}")
        return repr(self)

    def _refuse(self, other: object) -> NoReturn:
        raise TypeError(f"arithmetic with an objective: {self._remedy}")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse

    @property
    def _remedy(self) -> str:
        return (
            "the objective is this pass's loss function, not its value. Write `loss = objective(model(x), y)`, then "
            "`loss.backward()` and `loss.item()`; after the call the value is in objective.value"
        )


class Passes(Iterator[Objective]):
    """The passes of one gradient; the weights are back when the loop is over, however it ends.

    Args:
        steps: yields the objectives.
        running: returns the objective of the running pass.
    """

    def __init__(self, steps: Generator[Objective, None, None], running: Callable[[], Objective | None]) -> None:
        self._steps = steps
        self._running = running
        self._ended_by: str | None = None

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
        return next(self._steps)

    @property
    def live(self) -> bool:
        """Whether a pass has begun and the loop has not ended."""
        return inspect.getgeneratorstate(self._steps) == inspect.GEN_SUSPENDED

    @property
    def at_descent(self) -> bool:
        """Whether the running pass is the last one."""
        running = self._running()
        return running is not None and not running.is_ascent

    @property
    def settled(self) -> bool:
        """Whether the running pass may end here and leave the whole gradient behind."""
        running = self._running()
        return running is not None and not running.is_ascent and running.settled

    def finish(self) -> None:
        """End the last pass as the loop itself would."""
        next(self._steps, None)

    def leave(self, by: str) -> None:
        """End the loop early: weights, gradients and buffers go back."""
        self._ended_by = by
        self._steps.close()


class StepStats:
    """What the last finished climb did. Reading a property waits for the device; not reading costs nothing."""

    def __init__(self, norm: Tensor | None = None, perturbed: Tensor | None = None) -> None:
        self._norm = norm
        self._perturbed = perturbed
        self._ascent: Tensor | None = None

    @property
    def perturbed_on_device(self) -> Tensor | None:
        """:attr:`perturbed` as a 0-dim tensor on the device; None where there was nothing to climb."""
        return self._perturbed

    def record(self, ascent: Objective | None) -> None:
        """Remember the ascent objective's value, where there was a pass of it."""
        self._ascent = None if ascent is None else ascent.value

    @property
    def norm(self) -> float:
        """L2 norm of the perturbation; for 16-bit weights what they really moved by, which may be far from rho."""
        return 0.0 if self._norm is None else float(self._norm)

    @property
    def perturbed(self) -> bool:
        """Whether the last pass ran at w + eps rather than at w."""
        return self._perturbed is not None and bool(self._perturbed)

    @property
    def ascent_value(self) -> float | None:
        """Value of the ascent objective at w; None where it was not called or the step did not climb."""
        return None if self._ascent is None else float(torch.mean(self._ascent))

    def __repr__(self) -> str:
        return f"StepStats(perturbed={self.perturbed}, norm={self.norm:.6g}, ascent_value={self.ascent_value})"
