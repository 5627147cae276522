"""A data set as it lies on disk, before it is split: by the name that the recipe gives."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..datasets import Images, Pictures
from ..datasets.pictures import Files
from ..datasets.registry import OWN
from ..recipe import DataRecipe, RecipeError
from .examples import Examples
from .find import find
from .tokens import build_tokenizer, encode

__all__ = ["Read", "read"]

_UNOFFICIAL = "files are missing, or are not the official ones byte for byte: `bisam data verify {}` says which"
#: Fields that say something about images alone.
_OF_IMAGES = ("augment", "image_size", "mean")


@dataclass(frozen=True)
class Read:
    """What was read.

    Attributes:
        pool: training and validation examples are drawn from it.
        test: the test set.
        classes: how many.
        even: whether validation holds each class in proportion. Published sets in memory are large: it is by chance.
        size: pixels a side of pictures in files, unless the recipe gives ``image_size``.
        vocabulary: number of tokens, where the examples are texts.
        note: one sentence for who trains on them; empty: nothing to say.
    """

    pool: Examples | Files
    test: Examples | Files
    classes: int
    even: bool = False
    size: int = 0
    vocabulary: int | None = None
    note: str = ""


def read(recipe: DataRecipe, data_dir: Path | None, tokenizer: str | None) -> Read:
    """Read the recipe's set.

    Raises:
        RecipeError: files are missing or broken, or the recipe asks for what texts do not have.
    """
    image_field = next((name for name in _OF_IMAGES if getattr(recipe, name) not in (None, "none")), None)
    try:
        return _read(recipe.name, recipe.max_length, data_dir, tokenizer, image_field)
    except RecipeError as error:
        own_folder = recipe.name.partition(":")[0] in OWN
        raise RecipeError(f"data.name={recipe.name!r}: {error}") if own_folder else error from None
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        why = _UNOFFICIAL.format(recipe.name) if "download=True" in str(error) else error  # torchvision's own remedy
        raise RecipeError(f"{recipe.name} in --data-dir {data_dir} cannot be read: {why}") from error


@lru_cache(maxsize=1)  # the runs of a study in one process read the same set
def _read(name: str, max_length: int, data_dir: Path | None, tokenizer: str | None, image_field: str | None) -> Read:
    found = find(name).load(data_dir)
    if isinstance(found, Images):
        return Read(Examples(*found.train), Examples(*found.test), found.classes, note=found.note)
    if isinstance(found, Pictures):
        return Read(found.train, found.test, len(found.classes), even=True, size=found.size)
    if image_field is not None:
        raise RecipeError(f"data.{image_field} is for images, and {name} are texts: leave it out")
    made = build_tokenizer(tokenizer, found.train)
    pool, test = encode(made, [found.train, found.test], max_length)
    own = name.partition(":")[0] in OWN
    return Read(pool, test, len(found.classes), even=own, vocabulary=len(made))
