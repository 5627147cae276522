"""Engines that hand the optimizer a closure of their own."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["check_engine"]


def check_engine(closure: Callable[[], Any]) -> None:
    """Refuse the closure of Lightning's automatic optimization, which holds the last micro-batch alone.

    Raises:
        RuntimeError: naming the class to add.
    """
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
