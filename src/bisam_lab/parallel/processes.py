"""How the processes of a study start: from one that has imported the engine already, where the system can fork."""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from types import ModuleType

__all__ = ["context", "main_is_not_theirs", "warm_up"]


def context(*modules: str) -> BaseContext:
    """Return the context to start processes in, which find the engine and these modules imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(["bisam_lab.parallel.forkserver", *modules])
    return chosen


def warm_up(*modules: str) -> None:
    """Start the server that imports the engine, so that it does while this process imports what it needs itself."""
    if context(*modules).get_start_method() == "forkserver":
        forkserver.ensure_running()


@contextmanager
def main_is_not_theirs() -> Iterator[None]:
    """Let the processes that start within not run the caller's program as a module, as Python makes them otherwise.

    They need nothing of it, and a script that trains without asking for ``__name__`` first would train in each of them.
    """
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
