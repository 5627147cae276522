"""Fashion-MNIST (Xiao et al., arXiv 1708.07747)."""

from collections.abc import Iterator
from pathlib import Path

from ..checks import by_size
from ..contents import Images
from ..entry import Archive, Checked, DataSet

__all__ = ["ENTRIES"]

_FOLDER = "FashionMNIST/raw"


def _read(data_dir: Path) -> Images:
    from torchvision.datasets import FashionMNIST

    train, test = (FashionMNIST(data_dir, train=train) for train in (True, False))
    return Images(*((part.data[:, None], part.targets.long()) for part in (train, test)))


def _archives() -> tuple[Archive, ...]:
    from torchvision.datasets import FashionMNIST

    home = FashionMNIST.mirrors[0]
    return tuple(
        Archive(f"{_FOLDER}/{file}", home + file, digest, f"{_FOLDER}/{Path(file).stem}")
        for file, digest in FashionMNIST.resources
    )


def _check(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        for what, size in (("images-idx3", 16 + count * 784), ("labels-idx1", 8 + count)):
            yield by_size(data_dir / _FOLDER / f"{part}-{what}-ubyte", size)


ENTRIES = (
    DataSet(
        name="fashion-mnist",
        read=_read,
        what="articles of clothing, 28 x 28, grey",
        counts=(60_000, 10_000, 10),
        licence="MIT",
        home="https://github.com/zalandoresearch/fashion-mnist",
        inside=(_FOLDER,),
        archives=_archives,
        check=_check,
    ),
)
