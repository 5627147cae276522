"""The laboratory: trains, compares and reports sharpness-aware methods with paired seeds and intervals."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command ``bisam``, or say how to install what it needs."""
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(f"The command needs the laboratory, and {error.name} is not installed: pip install 'bisam[lab]'")
    command()
