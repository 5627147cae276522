"""What a reader returns: images in memory, pictures in files, or texts; each as a training set and a test set.

The entries of the data sets import this file, and a list of them should not wait for torch.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from .pictures import Files

__all__ = ["Contents", "Images", "Pictures", "Sample", "Texts", "sizes"]


@dataclass(frozen=True)
class Images:
    """Images in memory.

    Attributes:
        train: images (N, C, H, W), in bytes or in floating point from 0 to 1, and their labels (N,) in int64, from 0.
            Training and validation examples are drawn from them.
        test: the test set, in the same form.
        note: one sentence for who trains on them, such as that they are not the official ones; empty: nothing to say.

    Raises:
        ValueError: a tensor of another shape or type.
    """

    train: "tuple[Tensor, Tensor]"
    test: "tuple[Tensor, Tensor]"
    note: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        import torch

        for part, (x, y) in (("train", self.train), ("test", self.test)):
            if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
                raise ValueError(
                    f"Images({part}=...): the images must be (N, C, H, W) in uint8 or floating point, not "
                    f"{tuple(x.shape)} in {x.dtype}"
                )
            if y.shape != (len(x),) or y.dtype != torch.int64 or not len(y) or y.min() < 0:
                raise ValueError(
                    f"Images({part}=...): the labels must be ({len(x)},) in int64, from 0, one or more, not "
                    f"{tuple(y.shape)} in {y.dtype}"
                )
        if self.test[1].max() >= self.classes:
            raise ValueError(
                f"Images(test=...): label {int(self.test[1].max())} is not in train, which has {self.classes} classes"
            )

    @property
    def classes(self) -> int:
        """How many classes the training labels have."""
        return int(self.train[1].max()) + 1


@dataclass(frozen=True)
class Pictures:
    """Pictures in files.

    Attributes:
        train: training and validation pictures are drawn from these.
        test: the test set, the same for every seed.
        classes: names of the classes, by label.
        size: pixels a side, unless the recipe gives ``image_size``.
    """

    train: "Files"
    test: "Files"
    classes: tuple[str, ...]
    size: int


class Sample(NamedTuple):
    """One text or two, and the number of their class."""

    texts: tuple[str, ...]
    label: int


class Texts(NamedTuple):
    """Texts with labels.

    Attributes:
        train: training and validation texts are drawn from these.
        test: the test set.
        classes: names of the classes, by label.
    """

    train: list[Sample]
    test: list[Sample]
    classes: tuple[str, ...]


Contents: TypeAlias = Images | Pictures | Texts


def sizes(contents: Contents) -> tuple[int, int, int]:
    """Return the numbers of training examples, of test examples, and of classes."""
    if isinstance(contents, Images):
        return len(contents.train[1]), len(contents.test[1]), contents.classes
    return len(contents.train), len(contents.test), len(contents.classes)
