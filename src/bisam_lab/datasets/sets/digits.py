"""The digits of scikit-learn: the last 597 images are the test set."""

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
    ),
)
