"""Sets that are folders of picture files: which files are in training and in test, and of which class."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..recipe import RecipeError
from .pictures import Files, files, natural_size

__all__ = ["FOLDERS", "SUFFIXES", "Pictures", "listed", "read_folder"]

#: Names of picture files end so, in small or capital letters.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_IGNORED = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Pictures:
    """A set of picture files.

    Attributes:
        train: what training and validation are drawn from.
        test: the test set, whatever the seed.
        classes: their names, by label.
        size: pixels a side unless the recipe says otherwise.
    """

    train: Files
    test: Files
    classes: tuple[str, ...]
    size: int


def read_folder(folder: Path) -> Pictures:
    """Read ``train/CLASS/*`` with ``test/`` or else ``val/``, or plain ``CLASS/*``.

    Without a folder of test pictures a fifth of each class is the test set, drawn once and for all: it depends on the
    names of the files alone. Where there are both ``test/`` and ``val/``, ``val/`` is left alone.

    Raises:
        RecipeError: no such folder, fewer than two classes, one without pictures, or a file that is no picture.
    """
    if not folder.is_dir():
        raise RecipeError(
            f"no folder {folder}: folder:PATH must hold train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg"
        )
    train = folder / "train"
    classes = _classes(train if train.is_dir() else folder)
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


def _classes(folder: Path) -> list[str]:
    names = _subfolders(folder)
    if len(names) < 2:
        found = f"the one folder {names[0]}" if names else "no folder"
        raise RecipeError(f"{folder} holds {found}: a classification needs two classes or more, a folder each")
    return names


def _subfolders(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def listed(folder: Path, classes: list[str], may_lack: bool = False) -> Files:
    """List the pictures of each class, by name."""
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
    return kept


def _fifth(pool: Files, classes: list[str]) -> tuple[Files, Files]:
    rng, test = torch.Generator().manual_seed(0), []
    for label, name in enumerate(classes):
        (members,) = (pool.y == label).nonzero(as_tuple=True)
        if len(members) < 3:
            raise RecipeError(
                f"class {name} has {len(members)} pictures: training, validation and test need three or more"
            )
        test.append(members[torch.randperm(len(members), generator=rng)[: max(1, round(len(members) / 5))]].sort()[0])
    apart = torch.zeros(len(pool), dtype=torch.bool)
    apart[torch.cat(test)] = True
    return pool[(~apart).nonzero(as_tuple=True)[0]], pool[apart.nonzero(as_tuple=True)[0]]


def _imagenet(data_dir: Path) -> Pictures:
    """Read ``train/CLASS/*.JPEG`` and, as the test set, ``val/CLASS/*.JPEG``: the labels of the real one are secret."""
    root = data_dir / "imagenet" if (data_dir / "imagenet").is_dir() else data_dir
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise RecipeError(
                f"{root} holds no {part}/: `bisam data prepare imagenet` makes it of the official archives"
            )
    classes = _classes(root / "train")
    test = listed(root / "val", classes, may_lack=True)
    return Pictures(listed(root / "train", classes), test, tuple(classes), 224)


def _flowers(data_dir: Path) -> Pictures:
    """Read the official splits: 1020 + 1020 pictures to train and validate with, 6149 to test."""
    from torchvision.datasets import Flowers102

    _present(data_dir, "flowers", "flowers-102")
    parts = {split: Flowers102(data_dir, split) for split in ("train", "val", "test")}
    train, val, test = ((part._image_files, part._labels) for part in parts.values())
    pool = files([*train[0], *val[0]], [*train[1], *val[1]])
    return Pictures(pool, files(*test), tuple(f"flower {k + 1}" for k in range(1 + max(pool.y.tolist()))), 224)


def _pets(data_dir: Path) -> Pictures:
    """Read the official splits: 3680 pictures to train and validate with, 3669 to test."""
    from torchvision.datasets import OxfordIIITPet

    _present(data_dir, "pets", "oxford-iiit-pet")
    train, test = (OxfordIIITPet(data_dir, split) for split in ("trainval", "test"))
    return Pictures(files(train._images, train._labels), files(test._images, test._labels), tuple(train.classes), 224)


def _present(data_dir: Path, name: str, inner: str) -> None:
    if not (data_dir / inner).is_dir():
        raise RecipeError(f"--data-dir {data_dir} holds no {inner}/: `bisam data fetch {name}` gets it")


#: Readers by name; each takes --data-dir.
FOLDERS: dict[str, Callable[[Path], Pictures]] = {"imagenet": _imagenet, "flowers": _flowers, "pets": _pets}
