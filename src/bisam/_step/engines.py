"""Engines that hand the optimizer a closure of their own."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["check_engine"]


def check_engine(closure: Callable[[], Any], *, by_scaler: bool) -> None:
    """Refuse closures whose gradients are not the step's.

    Lightning's automatic optimization hands over one that holds the last micro-batch alone. ``GradScaler.step`` leaves
    the scale in the gradients that a closure computes.

    Args:
        closure: what ``step()`` was given.
        by_scaler: whether ``GradScaler.step`` gave it.

    Raises:
        RuntimeError: naming what to write.
    """
    if by_scaler:
        raise RuntimeError(
            "GradScaler.step(opt, closure) would apply a gradient that is still scaled: run the passes first, "
            "`for objective in opt.passes(): scaler.scale(objective(model(x), y)).backward()`, then scaler.step(opt)"
        )
    for part in _parts(closure):
        if type(part).__name__ == "Closure" and type(part).__module__.startswith(("lightning.", "pytorch_lightning.")):
            raise RuntimeError(
                "Lightning's automatic optimization called step(closure). It would log and count every pass, and with "
                "accumulate_grad_batches its closure holds the last micro-batch alone. Add the class that makes it "
                "right: `class Net(SharpnessAwareMixin, LightningModule)`, from bisam.integrations.lightning; where it "
                "is there, an on_train_start() of your own must call super().on_train_start()"
            )


def _parts(closure: Any) -> Iterator[Any]:
    """Yield a closure, and what its partial applications hold."""
    yield closure
    if isinstance(closure, functools.partial):
        for part in (closure.func, *closure.args, *closure.keywords.values()):
            yield from _parts(part)
