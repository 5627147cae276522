"""The laboratory: trains, compares and reports sharpness-aware methods with paired seeds and intervals."""

import atexit
import gc
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command ``bisam``, or say how to install what it needs."""
    atexit.register(_end)
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(f"The command needs the laboratory, and {error.name} is not installed: pip install 'bisam[lab]'")
    command()


def _end() -> None:
    """Let the interpreter end at once: it would look through all of torch for rubbish first, for half a second.

    Where triton is imported, it must, or triton's bindings report each object that is left as a leak.
    """
    if "triton" not in sys.modules:
        gc.freeze()
