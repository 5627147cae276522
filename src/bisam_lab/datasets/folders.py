"""Folders of pictures: which files are for training and which for testing, and the class of each."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..untrusted import check_text, special_file
from .apart import a_fifth
from .contents import Pictures

if TYPE_CHECKING:
    from .pictures import Files

__all__ = ["SUFFIXES", "class_names", "listed", "read_folder"]

#: Endings of picture files, in small or capital letters.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_IGNORED = frozenset({"Thumbs.db", "desktop.ini"})


def read_folder(folder: Path) -> Pictures:
    """Read ``train/CLASS/*`` with ``test/CLASS/*`` or ``val/CLASS/*``, or plain ``CLASS/*``.

    Where both ``test/`` and ``val/`` exist, ``test/`` is read. Without either, a fifth of each class is the test set.
    The choice depends on the names of the files alone: it is the same in every run.

    Raises:
        RecipeError: no such folder, fewer than two classes, a class without pictures, or a file that is no picture.
    """
    from .pictures import natural_size  # here, because torch takes seconds to import

    if not folder.is_dir():
        raise RecipeError(
            f"no folder {folder}: folder:PATH must hold train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg"
        )
    train = folder / "train"
    classes = class_names(train if train.is_dir() else folder)
    pool = listed(train if train.is_dir() else folder, classes)
    apart = next((folder / part for part in ("test", "val") if train.is_dir() and (folder / part).is_dir()), None)
    if apart is None:
        pool, test = _fifth(pool, classes)
    else:
        strange = sorted(set(_subfolders(apart)) - set(classes))
        if strange:
            raise RecipeError(f"{apart / strange[0]} is a class that {train} has not: name both alike")
        test = listed(apart, classes, may_lack=True)
    return Pictures(pool, test, tuple(classes), natural_size(pool, 64))


def class_names(folder: Path) -> list[str]:
    """Return the names of the folders inside, in order.

    Raises:
        RecipeError: fewer than two.
    """
    names = _subfolders(folder)
    for name in names:
        check_text(f"{folder}: the name of a class", name, name=True)
    if len(names) < 2:
        found = f"the one folder {names[0]}" if names else "no folder"
        raise RecipeError(f"{folder} holds {found}: a classification needs two classes or more, a folder each")
    return names


def _subfolders(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def listed(folder: Path, classes: list[str], may_lack: bool = False) -> "Files":
    """List the pictures of each class, in the order of their names.

    Args:
        folder: holds a folder for each class.
        classes: names of the classes, by label.
        may_lack: whether a class may have no pictures.

    Raises:
        RecipeError: a class or all of them without pictures, or a file that is no picture.
    """
    from .pictures import files

    paths, labels = [], []
    for label, name in enumerate(classes):
        found = _pictures(folder / name)
        if not found and not may_lack:
            raise RecipeError(f"{folder / name} holds no picture: remove the class, or fill it")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise RecipeError(f"{folder} holds no picture")
    return files(paths, labels)


def _pictures(folder: Path) -> list[Path]:
    found = [] if not folder.is_dir() else sorted(path for path in folder.rglob("*") if not path.is_dir())
    kept = [path for path in found if not path.name.startswith(".") and path.name not in _IGNORED]
    for path in kept:
        if path.suffix.lower() not in SUFFIXES:
            raise RecipeError(f"{path} is no picture ({', '.join(sorted(SUFFIXES))}): remove it")
        if (kind := special_file(path)) is not None:
            raise RecipeError(f"{path} is {kind}, and no picture: remove it")
    return kept


def _fifth(pool: "Files", classes: list[str]) -> "tuple[Files, Files]":
    """Move a fifth of each class, one picture at least, into a test set."""
    import torch

    apart = torch.tensor(a_fifth(pool.y.tolist(), classes, "pictures"))
    return pool[(~apart).nonzero(as_tuple=True)[0]], pool[apart.nonzero(as_tuple=True)[0]]
