"""Images as tensors: read in their official formats, split by the seed, normalised by their own statistics."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .recipe import DataRecipe, RecipeError

__all__ = ["Images", "Splits", "augment", "flip_labels", "load_splits"]


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W), in float32 or as bytes, and labels (N,) in int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: torch.device) -> "Images":
        """Move to ``device``."""
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Splits:
    """Training images (labels perhaps noisy), validation and test images (labels clean), and how many classes."""

    train: Images
    validation: Images
    test: Images
    classes: int


def load_splits(recipe: DataRecipe, data_dir: Path | None, seed: int) -> Splits:
    """Read a data set and split it: the same seed gives the same split, noise and images to every method.

    The test set is the official one (of the digits: the last 597 images) and does not depend on the seed. Pixels are
    normalised by mean and deviation of the training images, channel by channel.

    Raises:
        RecipeError: files that are missing, or fewer images than the recipe asks for.
    """
    try:
        pool, test = _READERS[recipe.name](data_dir)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{recipe.name} in --data-dir {data_dir} cannot be read: {error}") from error
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=rng)
    size = len(pool) - recipe.validation_size if recipe.train_size is None else recipe.train_size
    if size < 1 or size + recipe.validation_size > len(pool):
        raise RecipeError(
            f"data.train_size={size} and data.validation_size={recipe.validation_size} ask for more than the "
            f"{len(pool)} training images of {recipe.name}"
        )
    validation = pool[order[: recipe.validation_size]]
    train = pool[order[recipe.validation_size : recipe.validation_size + size]]
    classes = int(pool.y.max()) + 1
    train, validation, test = (_floats(part, recipe.image_size) for part in (train, validation, test))
    mean = train.x.mean((0, 2, 3), keepdim=True)
    std = train.x.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
    noisy = flip_labels(train.y, recipe.label_noise, classes, rng)
    return Splits(
        train=Images((train.x - mean) / std, noisy),
        validation=Images((validation.x - mean) / std, validation.y),
        test=Images((test.x - mean) / std, test.y),
        classes=classes,
    )


def flip_labels(labels: Tensor, share: float, classes: int, rng: torch.Generator) -> Tensor:
    """Symmetric noise: move exactly ``round(share * N)`` labels to another class, drawn uniformly."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    shift = torch.randint(1, classes, (len(chosen),), generator=rng)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % classes
    return noisy


def augment(x: Tensor, rng: torch.Generator, pad: int = 4) -> Tensor:
    """Crop each image (B, C, H, W) at random out of itself with ``pad`` empty pixels around, and flip half of them.

    Random numbers are drawn on the CPU, so that every device sees the same pictures.
    """
    batch, _, height, width = x.shape
    top, left = (torch.randint(0, 2 * pad + 1, (batch, 1), generator=rng) for _ in range(2))
    flip = torch.rand(batch, 1, generator=rng) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(flip, torch.arange(width - 1, -1, -1), torch.arange(width))
    rows, columns = rows.to(x.device), columns.to(x.device)
    padded = F.pad(x, (pad, pad, pad, pad)).movedim(1, -1)
    each = torch.arange(batch, device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _floats(images: Images, size: int | None) -> Images:
    """Turn bytes into numbers from 0 to 1 and shrink to ``size`` pixels a side."""
    x = images.x if images.x.is_floating_point() else images.x.float() / 255
    if size is not None and size != x.shape[-1]:
        x = F.interpolate(x, (size, size), mode="area")
    return Images(x, images.y)


def _digits(data_dir: Path | None) -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = Images(torch.tensor(bunch.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(bunch.target).long())
    where = torch.arange(len(images))
    return images[where[:1200]], images[where[1200:]]


def _fashion_mnist(data_dir: Path | None) -> tuple[Images, Images]:
    from torchvision.datasets import FashionMNIST

    root = _folder(data_dir, "fashion-mnist", "FashionMNIST/raw")
    parts = [FashionMNIST(root, train=train) for train in (True, False)]
    train, test = (Images(part.data[:, None], part.targets.long()) for part in parts)
    return train, test


def _cifar(name: str, folder: str, data_dir: Path | None) -> tuple[Images, Images]:
    from torchvision import datasets

    root = _folder(data_dir, name, folder)
    reader = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    train, test = (
        _pixels(part.data.transpose(0, 3, 1, 2), part.targets) for part in (reader(root, t) for t in (True, False))
    )
    return train, test


def _cifar10(data_dir: Path | None) -> tuple[Images, Images]:
    """Read the Python version through torchvision, or the binary version, a label byte and 3072 pixel bytes a row."""
    folder = Path(data_dir or ".") / "cifar-10-batches-bin"
    if not folder.is_dir():
        return _cifar("cifar10", "cifar-10-batches-py", data_dir)
    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches or not (folder / "test_batch.bin").is_file():
        raise RecipeError(f"{folder} must hold data_batch_*.bin and test_batch.bin")
    train, test = (_rows(files) for files in (batches, [folder / "test_batch.bin"]))
    return train, test


def _rows(files: list[Path]) -> Images:
    rows = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
    return _pixels(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])


def _pixels(pixels: "np.typing.NDArray[np.uint8]", labels: object) -> Images:
    return Images(torch.from_numpy(pixels.copy()), torch.as_tensor(np.asarray(labels, dtype=np.int64)))


def _folder(data_dir: Path | None, name: str, inner: str) -> Path:
    if data_dir is None:
        raise RecipeError(f"data.name={name} is read from disk: say where with --data-dir (it must hold {inner}/)")
    if not (data_dir / inner).is_dir():
        raise RecipeError(f"--data-dir {data_dir} holds no {inner}/: unpack the official {name} archive there")
    return data_dir


_READERS: dict[str, Callable[[Path | None], tuple[Images, Images]]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": lambda data_dir: _cifar("cifar100", "cifar-100-python", data_dir),
}
