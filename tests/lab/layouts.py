"""Small sets in the official layouts, of real CIFAR-100 pictures."""

import itertools

import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR100


def pictures(root, classes, each):
    """Yield (class, number, picture) of real pictures enlarged to 48 x 40."""
    data = CIFAR100(root, train=False)
    labels = np.asarray(data.targets)
    for label in range(classes):
        for number, place in enumerate(np.flatnonzero(labels == label)[:each]):
            yield label, number, Image.fromarray(data.data[place]).resize((48, 40))


def imagenet(root, cifar100):
    for label, number, picture in pictures(cifar100, 4, 18):
        folder = root / ("train" if number < 12 else "val") / f"n{label:08}"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{folder.name}_{number}.JPEG")


def flowers(root, cifar100):
    base = root / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    labels = []
    for count, (label, _, picture) in enumerate(pictures(cifar100, 4, 18), 1):
        picture.save(base / "jpg" / f"image_{count:05}.jpg")
        labels.append(label + 1)
    numbers = np.arange(1, len(labels) + 1)
    savemat(base / "imagelabels.mat", {"labels": labels})
    savemat(base / "setid.mat", {"trnid": numbers[::3], "valid": numbers[1::3], "tstid": numbers[2::3]})


def pets(root, cifar100):
    base = root / "oxford-iiit-pet"
    for folder in ("images", "annotations"):
        (base / folder).mkdir(parents=True)
    lines = []
    for label, number, picture in pictures(cifar100, 4, 18):
        name = f"breed_{'abcd'[label]}_{number}"
        picture.save(base / "images" / f"{name}.jpg")
        lines.append(f"{name} {label + 1} 1 1\n")
    for place, split in enumerate(("trainval", "trainval", "test")):
        with (base / "annotations" / f"{split}.txt").open("a") as file:
            file.writelines(itertools.islice(lines, place, None, 3))


def own(root, cifar100):
    for label, number, picture in pictures(cifar100, 3, 20):
        folder = root / "pictures" / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.png")


BUILDERS = {"imagenet": imagenet, "flowers": flowers, "pets": pets}
