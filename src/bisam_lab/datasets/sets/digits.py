"""The digits of scikit-learn: the last 597 images are the test set.

The file goes sheet by sheet: 14 sheets of about 130 digits in one order (each has 0 1 2 ... 9 three times, and then
0 9 5 5 6 5 0). Its authors name 13 writers. So the training images are nine sheets and the beginning of a tenth,
and the test images the rest of it, 87 images, and four sheets more: other writers. Validation is drawn from the
training images. Where the sheets are shuffled before the split there is no such gap: a support vector machine (C = 10,
gamma = 0.001 of the pixels, 1000 clean training images, mean of ten seeds) then has 99.0 % of unseen images right, and
without shuffling 99.5 % of the validation images and 96.7 % of the test images.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contents import Images
from ..entry import Checked, DataSet

__all__ = ["ENTRIES"]


def _read(data_dir: Path) -> Images:
    import torch

    rows = _rows()
    x = torch.tensor(rows[:, :-1].reshape(-1, 1, 8, 8) / 16.0, dtype=torch.float32)
    y = torch.tensor(rows[:, -1]).long()
    return Images(train=(x[:1200], y[:1200]), test=(x[1200:], y[1200:]))


def _rows() -> npt.NDArray[Any]:
    """Return the pixels of each image and, last, its class: (1797, 65).

    They are read from scikit-learn's file. To import scikit-learn takes a second or two, in every process of a study.
    """
    found = find_spec("sklearn")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return _rows_of_scikit_learn()


def _rows_of_scikit_learn() -> npt.NDArray[Any]:
    """Return what :func:`_rows` returns, by scikit-learn's own function, wherever its version keeps the file."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


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
        shift="Digits: validation images are by the writers of the training images, most test images by others. So "
        "test scores are lower than validation scores.",
    ),
)
