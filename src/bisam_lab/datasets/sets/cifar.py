"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), and the labels that people gave to them: CIFAR-N (arXiv 2110.12088)."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ..checks import by_checksum
from ..cifar_batches import BINARY, ROW, Batch, Pickled, class_names, labelled
from ..contents import Images
from ..entry import Archive, Checked, DataSet, HumanLabels

__all__ = ["ENTRIES", "SUPERCLASSES"]

#: CIFAR-100: the superclass of each class, in the numbering of the official files.
SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)
_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_HUMAN = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data"
_BINARY = "cifar-10-batches-bin"
_BATCH = 10_000
_LOSSY = "lossy_indices.json"
#: MD5 of the names of the classes, a line each.
_CLASSES = {"batches.meta": "c4a53feb1b64ee5c7b132f9a245e037b", "meta": "18d2388358c0483ca2d2be3aac2d399e"}


def _read10(data_dir: Path) -> Images:
    """Read the binary version if it is there, else the Python version."""
    folder = data_dir / _BINARY
    if not folder.is_dir():
        return _read_pickled("CIFAR10", data_dir)
    batches = [Batch(path) for path in sorted(folder.glob("data_batch_*.bin"))]
    test = Batch(folder / "test_batch.bin")
    if not batches or not test.path.is_file():
        raise RecipeError(f"{folder} must hold data_batch_*.bin and test_batch.bin")
    return Images(labelled(batches), labelled([test]), note=_note(folder, [*batches, test], BINARY))


def _read_pickled(name: str, data_dir: Path) -> Images:
    """Read the Python version, its official files or a copy that has all of them."""
    train, test = _pickled(name, data_dir)
    digests = {batch.path.name: batch.bytes_md5 for batch in (*train, *test)}
    return Images(labelled(train), labelled(test), note=_note(train[0].path.parent, [*train, *test], digests))


def _pickled(name: str, data_dir: Path) -> tuple[list[Pickled], list[Pickled]]:
    of = _torchvision(name)
    key = "labels" if name == "CIFAR10" else "fine_labels"
    train, test = (
        [Pickled(data_dir / of.base_folder / file, key, digest) for file, digest in listed]
        for listed in (of.train_list, of.test_list)
    )
    return train, test


def _note(folder: Path, batches: Sequence[Batch | Pickled], official: Iterable[str]) -> str:
    """Say in one sentence what is true of the files that are not the official ones; nothing if all are."""
    others = [batch for batch in batches if not batch.official]
    missing = set(official) - {batch.path.name for batch in batches}
    differing = [batch.path.name for batch in others if not batch.same_images]
    if differing:
        which = f"{', '.join(differing[:2])}{' and others' if len(differing) > 2 else ''}"
        return f"{which} in {folder} do not hold the official images and labels: bisam data verify says more"
    if missing:
        return f"{folder} lacks {len(missing)} of {len(missing) + len(batches)} official files, such as {min(missing)}"
    if others:
        images = sum(len(batch.rows) for batch in batches)
        return (
            f"{folder} holds the {images} official images and labels; the bytes of its files are not the official ones"
        )
    return ""


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


def _archives(name: str) -> tuple[Archive, ...]:
    of = _torchvision(name)
    return (Archive(of.filename, of.url, of.tgz_md5, of.base_folder),)


def _check_pickled(name: str, entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    of = _torchvision(name)
    for batch in itertools.chain(*_pickled(name, data_dir)):
        yield _compared(batch)
    yield _check_meta(data_dir / of.base_folder / of.meta["filename"], of.meta["md5"])


def _compared(batch: Pickled) -> Checked:
    """Compare the bytes of a file with the official ones, and if they differ, its images and labels."""
    if not batch.path.is_file():
        return Checked(batch.path, "missing")
    if batch.official:
        return Checked(batch.path, "ok")
    try:
        if batch.same_images:
            why = "" if batch.named else ": the images' names are missing in it"
            note = (
                f"the {len(batch.rows)} official images and labels, but MD5 {batch.found} is not the official one{why}"
            )
            return Checked(batch.path, "ok", note)
        return Checked(batch.path, "broken", f"MD5 {batch.found}, and its images or labels are not the official ones")
    except RecipeError as error:
        return Checked(batch.path, "broken", str(error).removeprefix(f"{batch.path} "))


def _check_meta(path: Path, digest: str) -> Checked:
    """Compare the bytes of the file of class names with the official ones, and if they differ, the names."""
    checked = by_checksum(path, digest)
    if checked.state != "broken":
        return checked
    try:
        names = hashlib.md5(class_names(path).encode(), usedforsecurity=False).hexdigest()
    except RecipeError:
        return checked
    same = names == _CLASSES[path.name]
    return Checked(path, "ok", f"the official names of classes, but {checked.note}") if same else checked


def _check10(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    if not (data_dir / _BINARY).is_dir():
        yield from _check_pickled("CIFAR10", entry, data_dir)
        return
    yield from _check_binary(data_dir / _BINARY)


def _check_binary(folder: Path) -> Iterator[Checked]:
    """Compare the files of the binary version with those of the official archive.

    A file ``lossy_indices.json`` in the folder lists the rows of a copy that differ from the official ones.
    """
    listing = folder / _LOSSY
    lossy = json.loads(listing.read_text()) if listing.is_file() else {}
    for file, digest in BINARY.items():
        checked = by_checksum(folder / file, digest)
        differing = len(lossy.get(file, ()))
        if checked.state == "ok" and differing:
            yield Checked(checked.path, "ok", f"{_LOSSY} beside it is about another copy")
        elif checked.state == "broken" and differing and checked.path.stat().st_size == _BATCH * ROW:
            yield Checked(checked.path, "broken", f"not the official file: {differing} images differ, by {_LOSSY}")
        elif checked.state == "broken" and (size := checked.path.stat().st_size) != _BATCH * ROW:
            yield Checked(checked.path, "broken", f"{size} bytes, not {_BATCH * ROW}")
        else:
            yield checked


def _partners10() -> tuple[int, ...]:
    """Bird -> airplane, cat <-> dog, deer -> horse, truck -> automobile (Patrini et al., arXiv 1609.03683)."""
    moved = {2: 0, 3: 5, 5: 3, 4: 7, 9: 1}
    return tuple(moved.get(k, k) for k in range(10))


def _partners100() -> tuple[int, ...]:
    """Return for each class the next one in its superclass."""
    members: dict[int, list[int]] = {}
    for k, group in enumerate(SUPERCLASSES):
        members.setdefault(group, []).append(k)
    following = {k: group[(i + 1) % len(group)] for group in members.values() for i, k in enumerate(group)}
    return tuple(following[k] for k in range(100))


_CIFAR10 = DataSet(
    name="cifar10",
    read=_read10,
    what="things and animals, 32 x 32",
    counts=(50_000, 10_000, 10),
    licence="none stated",
    home=_HOME,
    inside=(_BINARY, "cifar-10-batches-py"),
    archives=partial(_archives, "CIFAR10"),
    check=_check10,
    partners=_partners10(),
    human=HumanLabels(
        "cifar-n/CIFAR-10_human.pt",
        {
            "clean": "clean_label",
            "aggre": "aggre_label",
            "rand1": "random_label1",
            "rand2": "random_label2",
            "rand3": "random_label3",
            "worse": "worse_label",
        },
    ),
)
_CIFAR100 = DataSet(
    name="cifar100",
    read=partial(_read_pickled, "CIFAR100"),
    what="things and animals, 32 x 32",
    counts=(50_000, 10_000, 100),
    licence="none stated",
    home=_HOME,
    inside=("cifar-100-python",),
    archives=partial(_archives, "CIFAR100"),
    check=partial(_check_pickled, "CIFAR100"),
    partners=_partners100(),
    human=HumanLabels("cifar-n/CIFAR-100_human.pt", {"clean": "clean_label", "noisy": "noisy_label"}),
)


def _human_archives() -> tuple[Archive, ...]:
    paths = [entry.human.path for entry in (_CIFAR10, _CIFAR100) if entry.human]
    return tuple(Archive(path, f"{_HUMAN}/{Path(path).name}", None) for path in paths)


_CIFAR_N = DataSet(
    name="cifar-n",
    read=None,
    what="what people called CIFAR's training images; 50000 + 50000 labels",
    licence="CC BY-NC 4.0",
    home="https://github.com/UCSC-REAL/cifar-10-100n",
    inside=("cifar-n",),
    archives=_human_archives,
    recipe="data.noise=cifar-n:worse",
)

ENTRIES = (_CIFAR10, _CIFAR100, _CIFAR_N)
