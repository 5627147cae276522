"""The files of CIFAR in both official layouts: read without running code, and told from the official ones.

The Python version holds a pickle a file, with the names of the images; the binary version a row an image, its label and
its pixels. A copy may have the official images and other bytes, where the names are missing in it. So a file of the
Python version is compared twice: its bytes, and its rows, whose MD5 is that of the official file of the binary version.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RecipeError
from .checks import md5

__all__ = ["BINARY", "ROW", "ROWS", "Batch", "Pickled", "class_names", "labelled"]

PIXELS = 3072
ROW = 1 + PIXELS
#: MD5 of the files in the official archive cifar-10-binary.tar.gz.
BINARY = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
#: MD5 of the rows, a byte for the (fine) label and then the pixels, of each file of the Python version. CIFAR-10's are
#: those of the binary version; CIFAR-100's were computed from the official files.
ROWS = {
    **{name.removesuffix(".bin"): digest for name, digest in BINARY.items()},
    "train": "499bb38956a1886311674371e89d4c69",
    "test": "d0d45c24a88b97ae700b522f265e2d1a",
}


@dataclass(frozen=True)
class Batch:
    """A file of the binary version.

    Attributes:
        path: of the file.

    Raises:
        RecipeError: it is missing, cut, or another file.
    """

    path: Path

    @cached_property
    def rows(self) -> npt.NDArray[np.uint8]:
        """Labels and pixels (N, 3073)."""
        if not self.path.is_file():
            raise RecipeError(f"{self.path} is missing: `bisam data verify` says which files a set has")
        size = self.path.stat().st_size
        if size % ROW or not size:
            raise RecipeError(f"{self.path} is cut or no batch of CIFAR-10: {size} bytes are no rows of {ROW}")
        return np.fromfile(self.path, np.uint8).reshape(-1, ROW)

    @property
    def official(self) -> bool:
        """Whether it is the official file, byte for byte."""
        return self.found == BINARY.get(self.path.name)

    @property
    def same_images(self) -> bool:
        """Whether it holds the official labels and pixels, in the official order."""
        return self.official

    @cached_property
    def found(self) -> str:
        """MD5 of its bytes, which are its rows."""
        return hashlib.md5(self.rows.data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Pickled:
    """A file of the Python version.

    Attributes:
        path: of the file.
        key: of its labels.
        bytes_md5: MD5 of the official file.

    Raises:
        RecipeError: it is missing, cut, or another file.
    """

    path: Path
    key: str
    bytes_md5: str

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What the file says, by key."""
        return _unpickled(self.path)

    @cached_property
    def rows(self) -> npt.NDArray[np.uint8]:
        """Labels and pixels (N, 3073)."""
        try:
            pixels, labels = np.asarray(self.content["data"]), np.asarray(self.content[self.key])
            fits = pixels.dtype == np.uint8 and pixels.shape == (len(labels), PIXELS) and labels.dtype.kind in "iu"
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"{self.path} is no file of CIFAR: it lacks {error}") from None
        if not fits or not len(labels) or labels.min() < 0 or labels.max() > 255:
            raise RecipeError(
                f"{self.path} is no file of CIFAR: data {pixels.shape} in {pixels.dtype}, {self.key} {labels.shape}"
            )
        return np.concatenate([labels.astype(np.uint8)[:, None], pixels], 1)

    @cached_property
    def official(self) -> bool:
        """Whether it is the official file, byte for byte."""
        return self.found == self.bytes_md5

    @cached_property
    def same_images(self) -> bool:
        """Whether it holds the official labels and pixels, in the official order."""
        return hashlib.md5(self.rows.data, usedforsecurity=False).hexdigest() == ROWS.get(self.path.name)

    @cached_property
    def found(self) -> str:
        """MD5 of its bytes."""
        return md5(self.path)

    @property
    def named(self) -> bool:
        """Whether it holds names of its images, as the official files do."""
        return bool(self.content.get("filenames"))


def labelled(batches: "list[Batch] | list[Pickled]") -> Any:
    """Return the images (N, 3, 32, 32) and the labels (N,) of files, as tensors of uint8 and int64."""
    import torch

    rows = np.concatenate([batch.rows for batch in batches])
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32)), torch.from_numpy(rows[:, 0].astype(np.int64))


def class_names(path: Path) -> str:
    """Return the names of the classes that a file batches.meta or meta holds, a line each.

    Raises:
        RecipeError: it is missing, cut, or another file.
    """
    content = _unpickled(path)
    names = content.get("fine_label_names", content.get("label_names"))
    if not isinstance(names, list):
        raise RecipeError(f"{path} is no file of CIFAR: it holds no names of classes")
    return "\n".join(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)


class _Plain(pickle.Unpickler):
    """Builds arrays, bytes and plain values, and nothing else: a pickle may call any function of Python's."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return known[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """Return the bytes that Python 3 writes into a pickle of protocol 2 as text."""
    return text.encode("latin1")


def _unpickled(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise RecipeError(f"{path} is missing: `bisam data verify` says which files a set has")
    try:
        found = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # noqa: BLE001 a damaged pickle raises anything
        raise RecipeError(f"{path} is cut or no file of CIFAR: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{path} is no file of CIFAR: it holds a {type(found).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}
