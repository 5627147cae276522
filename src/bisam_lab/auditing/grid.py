"""The weights that the runs of a folder have kept."""

import re
from pathlib import Path

from ..errors import RecipeError, shown

__all__ = ["kept_below"]


def kept_below(word: str) -> tuple[list[str], str]:
    """Return the checkpoints that the finished runs below a folder have kept.

    Of a run that has kept epochs these are its epochs, in their order, and otherwise its best weights. Unfinished runs
    are left out: their best weights are still others tomorrow.

    Args:
        word: the folder of a study, of runs, or of one run.

    Returns:
        Paths of the files, run after run, and one sentence on the runs that are left out; may be empty.

    Raises:
        RecipeError: it is no folder, or no finished run in it has kept weights.
    """
    root = Path(word).expanduser()
    if not root.is_dir():
        raise RecipeError(
            f"--grid {shown(word)}: there is no such folder; name that of a study, or one with runs in it"
        )
    runs = {path.parent for path in root.rglob("result.json")}
    unfinished = {path.parent.parent for path in root.rglob("checkpoints/*.pt")} - runs
    kept = {run: found for run in runs if (found := _of_run(run))}
    said = [
        f"{len(left)} {what}"
        for left, what in ((runs - kept.keys(), "without weights"), (unfinished, "unfinished"))
        if left
    ]
    if not kept:
        there = f" ({', '.join(said)})" if said else ""
        raise RecipeError(
            f"--grid {shown(word)}: no finished run there has kept weights{there}: bisam compare --keep-weights and "
            "bisam train keep them"
        )
    files = [str(file) for run in sorted(kept, key=_by_number) for file in kept[run]]
    return files, f"Runs that are left out in {word}: {', '.join(said)}." if said else ""


def _of_run(folder: Path) -> list[Path]:
    checkpoints = folder / "checkpoints"
    epochs = sorted(checkpoints.glob("epoch-*.pt"), key=_by_number)
    return epochs or [path for path in [checkpoints / "best.pt"] if path.is_file()]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort seed-2 before seed-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
