"""A data set as it lies on disk, before it is split: by the name that the recipe gives."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..recipe import DataRecipe, RecipeError
from .examples import Examples
from .folders import FOLDERS, Pictures, read_folder
from .glue import read_glue, read_own
from .pictures import Files
from .sets import READERS
from .tokens import build_tokenizer, encode

__all__ = ["Read", "folder_of", "read"]


@dataclass(frozen=True)
class Read:
    """What a reader found.

    Attributes:
        pool: training and validation are drawn from it.
        test: the test set.
        classes: how many.
        even: whether validation holds each class in proportion; the sets in arrays are large, and drawn by chance.
        size: pixels a side of pictures in files, unless the recipe says otherwise.
        vocabulary: how many tokens there are, of texts.
    """

    pool: Examples | Files
    test: Examples | Files
    classes: int
    even: bool = False
    size: int = 0
    vocabulary: int | None = None


def read(recipe: DataRecipe, data_dir: Path | None, tokenizer: str | None) -> Read:
    """Read the recipe's set.

    Raises:
        RecipeError: files that are missing or broken, in one sentence.
    """
    kind = recipe.name.partition(":")[0]
    if kind in ("glue", "text") and (recipe.augment != "none" or recipe.image_size is not None):
        field = "augment" if recipe.augment != "none" else "image_size"
        raise RecipeError(f"data.{field} is for images, and {recipe.name} are texts: leave it out")
    try:
        return _read(recipe.name, recipe.max_length, data_dir, tokenizer)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise RecipeError(f"data.name={recipe.name!r}: {error}") if kind in ("folder", "text") else error from None
        raise RecipeError(f"{recipe.name} in --data-dir {data_dir} cannot be read: {error}") from error


@lru_cache(maxsize=1)  # a process of a study trains many runs on one set
def _read(name: str, max_length: int, data_dir: Path | None, tokenizer: str | None) -> Read:
    kind, _, rest = name.partition(":")
    if kind in ("glue", "text"):
        return _texts(kind, rest, max_length, data_dir, tokenizer)
    if kind == "folder":
        return _pictures(read_folder(folder_of(rest, data_dir)))
    if kind in FOLDERS:
        if data_dir is None:
            raise RecipeError(f"data.name={kind} is read from disk: say where with --data-dir")
        return _pictures(FOLDERS[kind](data_dir))
    pool, test = READERS[name](data_dir)
    return Read(pool, test, int(pool.y.max()) + 1)


def folder_of(path: str, data_dir: Path | None) -> Path:
    """Return where a folder of one's own lies: at ``path``, or under --data-dir."""
    given = Path(path).expanduser()
    return given if given.is_dir() or data_dir is None else data_dir / given


def _pictures(found: Pictures) -> Read:
    return Read(found.train, found.test, len(found.classes), even=True, size=found.size)


def _texts(kind: str, rest: str, max_length: int, data_dir: Path | None, tokenizer: str | None) -> Read:
    texts = read_glue(rest, data_dir) if kind == "glue" else read_own(folder_of(rest, data_dir))
    made = build_tokenizer(tokenizer, texts.train)
    pool, test = encode(made, [texts.train, texts.test], max_length)
    return Read(pool, test, len(texts.classes), vocabulary=len(made))
