"""What a folder holds: a study, a tuning or a run."""

from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import RecipeError

__all__ = ["Kind", "kind_of"]

Kind: TypeAlias = Literal["study", "tuning", "run"]

#: Files that stand in a folder of each kind alone, the surest first.
_MARKS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("study", ("study.json",)),
    ("tuning", ("tuning.json", "optuna.log", "trials.csv")),
    ("run", ("run.yaml", "result.json", "csv/metrics.csv", "checkpoints")),
    ("study", ("recipe.yaml",)),
)


def kind_of(folder: Path) -> Kind:
    """Return what a folder holds.

    Raises:
        RecipeError: it does not exist, is empty, or holds something else.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder} is no folder: name the one that was --out of bisam compare, tune or train")
    for kind, files in _MARKS:
        if any((folder / name).exists() for name in files):
            return kind
    if (folder / "audit.json").is_file():
        raise RecipeError(f"{folder} is the folder of an audit, whose page is there: {folder / 'audit.html'}")
    if not any(folder.iterdir()):
        raise RecipeError(f"{folder} is empty: name the folder that was --out of bisam compare, tune or train")
    inner = _inside(folder)
    hint = f"did you mean {', '.join(inner[:2])}{' or another' if len(inner) > 2 else ''}?" if inner else ""
    raise RecipeError(f"{folder} has no recipe.yaml: {hint or 'it is the folder of no study, tuning or run'}")


def _inside(folder: Path) -> list[str]:
    """Return the folders of a kind below, up to three levels down."""
    names = {name for _, files in _MARKS for name in files if "." in name and "/" not in name}
    for depth in ("*", "*/*", "*/*/*"):
        found = [path.parent for path in sorted(folder.glob(f"{depth}/*")) if path.name in names]
        if found:
            return [str(path) for path in dict.fromkeys(found)]
    return []
