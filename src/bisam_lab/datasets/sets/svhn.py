"""SVHN, the cropped digits (Netzer et al., 2011)."""

from pathlib import Path

from ..contents import Images
from ..entry import Archive, DataSet

__all__ = ["ENTRIES"]


def _read(data_dir: Path) -> Images:
    import torch
    from torchvision.datasets import SVHN

    train, test = (SVHN(data_dir, split) for split in ("train", "test"))
    return Images(*((torch.from_numpy(p.data.copy()), torch.as_tensor(p.labels).long()) for p in (train, test)))


def _archives() -> tuple[Archive, ...]:
    from torchvision.datasets import SVHN

    return tuple(Archive(file, url, digest) for url, file, digest in map(SVHN.split_list.get, ("train", "test")))


ENTRIES = (
    DataSet(
        name="svhn",
        read=_read,
        what="house numbers, cropped digits, 32 x 32",
        counts=(73_257, 26_032, 10),
        licence="non-commercial use",
        home="http://ufldl.stanford.edu/housenumbers",
        inside=("train_32x32.mat",),
        archives=_archives,
    ),
)
