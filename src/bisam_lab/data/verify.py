"""Whether the files of a set are the official ones, file by file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ..recipe import DataRecipe, RecipeError
from .folders import FOLDERS, Pictures, read_folder
from .glue import read_glue, read_own
from .official import archives, md5
from .pictures import Files, decode
from .read import folder_of

__all__ = ["Checked", "State", "report_folder", "verify"]

State = Literal["ok", "unchecked", "missing", "broken"]
_ROWS = 30_730_000
_NO_CHECKSUM = "its authors publish no checksum of it"


class Checked(NamedTuple):
    """One file: ``unchecked`` is here and reads well, but there is nothing to hold it against."""

    path: Path
    state: State
    note: str = ""


def verify(name: str, data_dir: Path) -> list[Checked]:
    """Check the files of a set.

    Returns:
        Each file with its state. A set is whole if none is missing or broken.

    Raises:
        RecipeError: no such set.
    """
    kind, _, rest = name.partition(":")
    if name != "cifar-n":
        try:
            DataRecipe(name=name)
        except ValueError as error:
            raise RecipeError(
                str(error).splitlines()[2].strip().removeprefix("Value error, ").partition(" [type=")[0]
            ) from None
    if name == "digits":
        return [Checked(Path("digits"), "ok", "comes with scikit-learn")]
    if kind == "folder":
        return _pictures(folder_of(rest, data_dir))
    if kind in ("glue", "text"):
        return _texts(kind, rest, data_dir)
    return [*_archives(name, data_dir), *_unpacked(name, data_dir)]


def _against(path: Path, digest: str) -> Checked:
    if not path.is_file():
        return Checked(path, "missing")
    found = md5(path)
    return Checked(path, "ok") if found == digest else Checked(path, "broken", f"MD5 {found}, not {digest}")


def _archives(name: str, data_dir: Path) -> Iterator[Checked]:
    """Check the official files; one that was unpacked need not be kept."""
    for archive in archives(name):
        path = data_dir / archive.path
        if not path.is_file() and archive.makes is not None:
            continue
        if archive.md5 is not None:
            yield _against(path, archive.md5)
        else:
            yield Checked(path, "unchecked", _NO_CHECKSUM) if path.is_file() else Checked(path, "missing")


def _unpacked(name: str, data_dir: Path) -> Iterator[Checked]:
    if name == "cifar10" and (data_dir / "cifar-10-batches-bin").is_dir():
        yield from _binary(data_dir / "cifar-10-batches-bin")
    elif name in ("cifar10", "cifar100"):
        from torchvision import datasets

        of = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        for file, digest in [*of.train_list, *of.test_list, (of.meta["filename"], of.meta["md5"])]:
            yield _against(data_dir / of.base_folder / file, digest)
    elif name == "fashion-mnist":
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            for what, size in (("images-idx3", 16 + count * 784), ("labels-idx1", 8 + count)):
                yield _sized(data_dir / "FashionMNIST" / "raw" / f"{part}-{what}-ubyte", size)
    elif name in FOLDERS:
        yield _listing(name, data_dir)


def _sized(path: Path, size: int) -> Checked:
    if not path.is_file():
        return Checked(path, "missing")
    if path.stat().st_size != size:
        return Checked(path, "broken", f"{path.stat().st_size} bytes, not {size}")
    return Checked(path, "unchecked", _NO_CHECKSUM)


def _binary(folder: Path) -> Iterator[Checked]:
    """Check the binary version by size: only its whole archive has a published checksum.

    A list ``lossy_indices.json`` beside the files tells which rows differ from the official ones.
    """
    listing = folder / "lossy_indices.json"
    lossy = json.loads(listing.read_text()) if listing.is_file() else {}
    for file in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        checked = _sized(folder / file, _ROWS)
        if checked.state == "unchecked" and lossy.get(file):
            note = f"not the official file: {len(lossy[file])} images differ, by {listing.name}"
            checked = Checked(checked.path, "broken", note)
        yield checked


def _listing(name: str, data_dir: Path) -> Checked:
    """Check that all pictures of the official lists are there; what is in them nobody publishes checksums of."""
    official = {"flowers": (2040, 6149, 102), "pets": (3680, 3669, 37), "imagenet": (1_281_167, 50_000, 1000)}[name]
    try:
        found = FOLDERS[name](data_dir)
    except (RecipeError, RuntimeError, OSError) as error:
        return Checked(data_dir, "missing", str(error))
    for path in (*found.train.paths, *found.test.paths):
        if not Path(path.decode()).is_file():
            return Checked(Path(path.decode()), "missing")
    counts = (len(found.train), len(found.test), len(found.classes))
    text = "{} + {} pictures of {} classes"
    if counts != official:
        return Checked(data_dir, "broken", f"{text.format(*counts)}, not {text.format(*official)}")
    return Checked(data_dir, "unchecked", f"{text.format(*counts)}; single pictures have no published checksums")


def _texts(kind: str, rest: str, data_dir: Path) -> list[Checked]:
    where = data_dir / "glue" if kind == "glue" else folder_of(rest, data_dir)
    if not where.is_dir():
        return [Checked(where, "missing")]
    try:
        found = read_glue(rest, data_dir) if kind == "glue" else read_own(where)
    except RecipeError as error:
        return [Checked(where, "broken", str(error))]
    counts = f"{len(found.train)} + {len(found.test)} texts of {len(found.classes)} classes; {_NO_CHECKSUM}"
    return [Checked(where, "unchecked", counts)]


def _pictures(folder: Path) -> list[Checked]:
    try:
        found = read_folder(folder)
    except RecipeError as error:
        return [Checked(folder, "missing" if not folder.is_dir() else "broken", str(error))]
    return _broken(found) or [Checked(folder, "ok", "every picture can be decoded")]


def _broken(found: Pictures) -> list[Checked]:
    broken = []
    for path in (*found.train.paths, *found.test.paths):
        try:
            decode(path, 8)
        except RecipeError as error:
            broken.append(Checked(Path(path.decode()), "broken", str(error)))
    return broken


def report_folder(folder: Path) -> list[str]:
    """Say what a folder of pictures holds: classes, pictures of each, size, and which are broken.

    Raises:
        RecipeError: a folder that cannot be read as a set.
    """
    found = read_folder(folder)
    lines = [f"{len(found.train)} + {len(found.test)} pictures of {len(found.classes)} classes, at {found.size} pixels"]
    train, test = (_counts(part, len(found.classes)) for part in (found.train, found.test))
    lines += [f"{name}: {train[k]} + {test[k]}" for k, name in enumerate(found.classes)]
    return lines + [f"broken: {checked.note}" for checked in _broken(found)]


def _counts(part: Files, classes: int) -> list[int]:
    counts: list[int] = part.y.bincount(minlength=classes).tolist()
    return counts
