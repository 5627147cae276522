"""Imports of large packages, without the search for rubbish that they set off: a sixth of their time."""

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["no_collection"]


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Collect no rubbish within. Imports make many objects and hardly any rubbish, and set off hundreds of searches."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
