"""The laboratory: trains, compares and reports sharpness-aware methods with paired seeds and intervals."""

import atexit
import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import audit
    from .results import Study, compare

__all__ = ["Study", "audit", "compare", "main"]

#: Where each name is defined. It is imported when it is first asked for.
_ROOMS = {"Study": ".results", "audit": ".auditing", "compare": ".results"}


def __getattr__(name: str) -> Any:
    """Import what trains and reads when it is first asked for: it takes seconds, and the command needs none."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'bisam_lab' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_ROOMS[name], __name__), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_missing(f"bisam_lab.{name}", error), name=error.name) from None


def main() -> None:
    """Run the command ``bisam``, or say how to install what it needs."""
    atexit.register(_end)
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(_missing("The command", error))
    command()


def _missing(what: str, error: ModuleNotFoundError) -> str:
    return f"{what} needs the laboratory, and {error.name} is not installed: pip install 'bisam[lab]'"


def _end() -> None:
    """Let the interpreter end at once: it would look through all of torch for rubbish first, for half a second.

    Where triton is imported, it must, or triton's bindings report each object that is left as a leak.
    """
    if "triton" not in sys.modules:
        gc.freeze()
