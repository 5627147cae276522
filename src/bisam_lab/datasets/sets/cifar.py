"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), and the labels that people gave to them: CIFAR-N (arXiv 2110.12088)."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RecipeError
from ..checks import by_checksum, by_size
from ..contents import Images
from ..entry import Archive, Checked, DataSet, HumanLabels

if TYPE_CHECKING:
    from torch import Tensor

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
_ROW = 3073  # a byte for the label, 3072 for the pixels
_BATCH = 10_000


def _read10(data_dir: Path) -> Images:
    """Read the binary version if it is there, else the Python version."""
    folder = data_dir / _BINARY
    if not folder.is_dir():
        return _read_pickled("CIFAR10", data_dir)
    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches or not (folder / "test_batch.bin").is_file():
        raise RecipeError(f"{folder} must hold data_batch_*.bin and test_batch.bin")
    return Images(_rows(batches), _rows([folder / "test_batch.bin"]))


def _rows(files: list[Path]) -> "tuple[Tensor, Tensor]":
    import torch

    for file in files:
        if file.stat().st_size % _ROW:
            raise RecipeError(
                f"{file} is cut or no batch of CIFAR-10: {file.stat().st_size} bytes are no rows of {_ROW}"
            )
    rows = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, _ROW) for file in files])
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32)), torch.from_numpy(rows[:, 0].astype(np.int64))


def _read_pickled(name: str, data_dir: Path) -> Images:
    """Read the Python version through torchvision."""
    import torch

    train, test = (_torchvision(name)(data_dir, train) for train in (True, False))
    return Images(
        *((torch.from_numpy(p.data.transpose(0, 3, 1, 2).copy()), torch.tensor(p.targets)) for p in (train, test))
    )


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


def _archives(name: str) -> tuple[Archive, ...]:
    of = _torchvision(name)
    return (Archive(of.filename, of.url, of.tgz_md5, of.base_folder),)


def _check_pickled(name: str, entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    of = _torchvision(name)
    for file, digest in [*of.train_list, *of.test_list, (of.meta["filename"], of.meta["md5"])]:
        yield by_checksum(data_dir / of.base_folder / file, digest)


def _check10(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    if not (data_dir / _BINARY).is_dir():
        yield from _check_pickled("CIFAR10", entry, data_dir)
        return
    yield from _check_binary(data_dir / _BINARY)


def _check_binary(folder: Path) -> Iterator[Checked]:
    """Check the binary version by size: only its archive has a published checksum.

    A file ``lossy_indices.json`` in the folder lists the rows that differ from the official ones.
    """
    listing = folder / "lossy_indices.json"
    lossy = json.loads(listing.read_text()) if listing.is_file() else {}
    for file in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        checked = by_size(folder / file, _BATCH * _ROW)
        if checked.state == "unchecked" and lossy.get(file):
            note = f"not the official file: {len(lossy[file])} images differ, by {listing.name}"
            checked = Checked(checked.path, "broken", note)
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
)

ENTRIES = (_CIFAR10, _CIFAR100, _CIFAR_N)
