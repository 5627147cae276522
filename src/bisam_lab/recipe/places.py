"""What lies at a path: pictures, texts, a study; and the name under which a recipe reads it."""

from pathlib import Path

from ..datasets.table_files import FORMATS
from ..errors import RecipeError

__all__ = ["data_at"]


def data_at(word: str) -> str | None:
    """Return ``folder:PATH`` or ``text:PATH`` for a path that holds data; None: it is no path to data.

    A path that ends in ``/`` or in ``.csv``, ``.tsv``, ``.parquet`` is one to data even where nothing is.

    Raises:
        RecipeError: a folder of a study, of a tuning, or of several tables; or one picture.
    """
    path = Path(word).expanduser()
    if path.is_dir():
        return _folder(Path(word).as_posix(), path)
    if path.suffix.lower() in FORMATS:
        return f"text:{Path(word).as_posix()}"
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
        raise RecipeError(f"{word} is one picture: name the folder that has a folder of pictures for each class")
    return f"folder:{word.rstrip('/')}" if word.endswith("/") and word.strip("/") else None


def _folder(word: str, path: Path) -> str:
    for name, kind in (("best.yaml", "tuning"), ("recipe.yaml", "study")):
        if (path / name).is_file():
            out = f" --out {word}" if kind == "study" else ""
            raise RecipeError(f"{word} is the folder of a {kind}, not of data: bisam compare {word}/{name}{out}")
    tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in FORMATS)
    if any(Path(name).stem == "train" for name in tables):
        return f"text:{word}"
    if len(tables) > 1:
        raise RecipeError(f"{word} holds {len(tables)} tables: name one, such as data.name=text:{word}/{tables[0]}")
    return f"text:{word}/{tables[0]}" if tables else f"folder:{word}"
