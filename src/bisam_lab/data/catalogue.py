"""The sets by name: what they are, whose, and whether they are here."""

from dataclasses import dataclass
from pathlib import Path

from ..recipe.known import GLUE

__all__ = ["CATALOGUE", "Entry", "found"]


@dataclass(frozen=True)
class Entry:
    """One set.

    Attributes:
        name: what a recipe calls it.
        what: is in it.
        examples: official numbers of training and test, and of classes.
        licence: terms, as its authors state them.
        where: its home.
        inner: files or folders of which one must lie in --data-dir; none where nothing need lie there.
    """

    name: str
    what: str
    examples: str
    licence: str
    where: str
    inner: tuple[str, ...] = ()


_GLUE = {  # training and dev examples, classes
    "cola": ("CoLA", "8551 + 1043 examples, 2 classes"),
    "sst2": ("SST-2", "67349 + 872 examples, 2 classes"),
    "mrpc": ("MRPC", "3668 + 408 examples, 2 classes"),
    "qqp": ("QQP", "363846 + 40430 examples, 2 classes"),
    "mnli": ("MNLI", "392702 + 9815 examples, 3 classes"),
    "qnli": ("QNLI", "104743 + 5463 examples, 2 classes"),
    "rte": ("RTE", "2490 + 277 examples, 2 classes"),
    "wnli": ("WNLI", "635 + 71 examples, 2 classes"),
}
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            *("digits", "handwritten digits, 8 x 8, grey", "1200 + 597 examples, 10 classes", "CC BY 4.0"),
            where="inside scikit-learn",
        ),
        Entry(
            *("fashion-mnist", "articles of clothing, 28 x 28, grey", "60000 + 10000 examples, 10 classes", "MIT"),
            *("https://github.com/zalandoresearch/fashion-mnist", ("FashionMNIST/raw",)),
        ),
        Entry(
            *("cifar10", "things and animals, 32 x 32", "50000 + 10000 examples, 10 classes", "none stated"),
            *("https://www.cs.toronto.edu/~kriz/cifar.html", ("cifar-10-batches-bin", "cifar-10-batches-py")),
        ),
        Entry(
            *("cifar100", "things and animals, 32 x 32", "50000 + 10000 examples, 100 classes", "none stated"),
            *("https://www.cs.toronto.edu/~kriz/cifar.html", ("cifar-100-python",)),
        ),
        Entry(
            *("cifar-n", "what people called CIFAR's training images", "50000 + 50000 labels", "CC BY-NC 4.0"),
            *("https://github.com/UCSC-REAL/cifar-10-100n", ("cifar-n",)),
        ),
        Entry(
            *(
                "svhn",
                "house numbers, cropped digits, 32 x 32",
                "73257 + 26032 examples, 10 classes",
                "non-commercial use",
            ),
            *("http://ufldl.stanford.edu/housenumbers", ("train_32x32.mat",)),
        ),
        Entry(
            *("imagenet", "ILSVRC 2012; its validation set is the test set", "1281167 + 50000 examples, 1000 classes"),
            *("non-commercial research, by registration", "https://image-net.org", ("imagenet/train", "train")),
        ),
        Entry(
            *("flowers", "Oxford flowers", "2040 + 6149 examples, 102 classes", "none stated"),
            *(f"{_OXFORD}/flowers/102", ("flowers-102",)),
        ),
        Entry(
            *("pets", "Oxford-IIIT pets, cats and dogs by breed", "3680 + 3669 examples, 37 classes", "CC BY-SA 4.0"),
            *(f"{_OXFORD}/pets", ("oxford-iiit-pet",)),
        ),
        *(
            Entry(
                *(f"glue:{task}", f"GLUE {_GLUE[task][0]}; dev is the test set", _GLUE[task][1], "see its authors"),
                *("https://gluebenchmark.com", (f"glue/{_GLUE[task][0]}", f"glue/{task}")),
            )
            for task in GLUE
        ),
        Entry("folder:PATH", "your own pictures: train/CLASS/*.jpg, test/CLASS/*.jpg", "", "yours", "PATH"),
        Entry("text:PATH", "your own texts: {train,test}.{tsv,parquet}, columns text, label", "", "yours", "PATH"),
    )
}


def found(entry: Entry, data_dir: Path | None) -> bool | None:
    """Say whether a set lies in --data-dir; None where it is no question: it comes along, or lies at a path."""
    if not entry.inner:
        return None
    return data_dir is not None and any((data_dir / inner).exists() for inner in entry.inner)
