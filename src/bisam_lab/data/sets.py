"""Readers of image sets in their official formats: each returns its training and its test examples, as bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..recipe import RecipeError
from .examples import Examples

__all__ = ["READERS"]


def _digits(data_dir: Path | None) -> tuple[Examples, Examples]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = Examples(
        torch.tensor(bunch.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(bunch.target).long()
    )
    where = torch.arange(len(images))
    return images[where[:1200]], images[where[1200:]]


def _fashion_mnist(data_dir: Path | None) -> tuple[Examples, Examples]:
    from torchvision.datasets import FashionMNIST

    root = _folder(data_dir, "fashion-mnist", "FashionMNIST/raw")
    parts = [FashionMNIST(root, train=train) for train in (True, False)]
    train, test = (Examples(part.data[:, None], part.targets.long()) for part in parts)
    return train, test


def _cifar(name: str, folder: str, data_dir: Path | None) -> tuple[Examples, Examples]:
    from torchvision import datasets

    root = _folder(data_dir, name, folder)
    reader = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    train, test = (
        _pixels(part.data.transpose(0, 3, 1, 2), part.targets) for part in (reader(root, t) for t in (True, False))
    )
    return train, test


def _cifar10(data_dir: Path | None) -> tuple[Examples, Examples]:
    """Read the Python version through torchvision, or the binary version, a label byte and 3072 pixel bytes a row."""
    folder = Path(data_dir or ".") / "cifar-10-batches-bin"
    if not folder.is_dir():
        return _cifar("cifar10", "cifar-10-batches-py", data_dir)
    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches or not (folder / "test_batch.bin").is_file():
        raise RecipeError(f"{folder} must hold data_batch_*.bin and test_batch.bin")
    train, test = (_rows(files) for files in (batches, [folder / "test_batch.bin"]))
    return train, test


def _svhn(data_dir: Path | None) -> tuple[Examples, Examples]:
    """Read the cropped digits, ``train_32x32.mat`` and ``test_32x32.mat``."""
    from torchvision.datasets import SVHN

    if data_dir is None or not (data_dir / "train_32x32.mat").is_file():
        raise RecipeError(f"--data-dir {data_dir} holds no train_32x32.mat: `bisam data fetch svhn` gets it")
    train, test = (_pixels(part.data, part.labels) for part in (SVHN(data_dir, split) for split in ("train", "test")))
    return train, test


def _rows(files: list[Path]) -> Examples:
    for file in files:
        if file.stat().st_size % 3073:
            raise RecipeError(f"{file} is cut or no batch of CIFAR-10: {file.stat().st_size} bytes are no rows of 3073")
    rows = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
    return _pixels(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])


def _pixels(pixels: "np.typing.NDArray[np.uint8]", labels: object) -> Examples:
    return Examples(torch.from_numpy(pixels.copy()), torch.as_tensor(np.asarray(labels, dtype=np.int64)))


def _folder(data_dir: Path | None, name: str, inner: str) -> Path:
    if data_dir is None:
        raise RecipeError(f"data.name={name} is read from disk: say where with --data-dir (it must hold {inner}/)")
    if not (data_dir / inner).is_dir():
        raise RecipeError(f"--data-dir {data_dir} holds no {inner}/: unpack the official {name} archive there")
    return data_dir


READERS: dict[str, Callable[[Path | None], tuple[Examples, Examples]]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "svhn": _svhn,
    "cifar100": lambda data_dir: _cifar("cifar100", "cifar-100-python", data_dir),
}
