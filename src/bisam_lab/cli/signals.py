"""Ctrl-C and SIGTERM, with which schedulers announce that a job must leave: one sentence, and a code that says so."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import typer
from rich.console import Console

__all__ = ["Terminated", "leaving"]


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def leaving(*, silent: bool = False) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the command with code 143 and 130, once what is within has tidied up.

    Args:
        silent: whether somebody else says so.
    """
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as stop:  # perhaps a plain one, which what is within raises once it has tidied up
        terminated = terminated or isinstance(stop, Terminated)
        word, code = ("Terminated", 143) if terminated else ("Interrupted", 130)
        if not silent:
            Console(stderr=True).print(f"\n{word}. What is done is kept; the same command goes on.")
        raise typer.Exit(code) from None
    finally:
        signal.signal(signal.SIGTERM, before)
