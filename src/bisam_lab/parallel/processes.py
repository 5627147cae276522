"""How the processes of a study start: from one that has imported the engine already, where the system can fork."""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

__all__ = ["context", "warm_up"]


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
