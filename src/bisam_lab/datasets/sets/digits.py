"""The digits of scikit-learn: the last 597 images are the test set."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ..contents import Images
from ..entry import Checked, DataSet

__all__ = ["ENTRIES"]


def _read(data_dir: Path) -> Images:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images / 16.0, dtype=torch.float32)[:, None]
    y = torch.tensor(bunch.target).long()
    return Images(train=(x[:1200], y[:1200]), test=(x[1200:], y[1200:]))


def _check(entry: DataSet, data_dir: Path) -> Iterator[Checked]:
    yield Checked(Path("digits"), "ok", "comes with scikit-learn")


ENTRIES = (
    DataSet(
        name="digits",
        read=_read,
        what="handwritten digits, 8 x 8, grey",
        counts=(1200, 597, 10),
        licence="CC BY 4.0",
        home="inside scikit-learn",
        check=_check,
    ),
)
