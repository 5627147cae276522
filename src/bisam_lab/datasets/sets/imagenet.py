"""ImageNet, ILSVRC 2012. The labels of the official test set are secret: the validation set is the test set."""

from pathlib import Path

from ...errors import RecipeError
from ..checks import by_official_lists
from ..contents import Pictures
from ..entry import Archive, DataSet
from ..folders import class_names, listed

__all__ = ["ENTRIES"]


def _read(data_dir: Path) -> Pictures:
    """Read ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""
    root = data_dir / "imagenet" if (data_dir / "imagenet").is_dir() else data_dir
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise RecipeError(
                f"{root} holds no {part}/: `bisam data prepare imagenet` makes it from the official archives"
            )
    classes = class_names(root / "train")
    test = listed(root / "val", classes, may_lack=True)
    return Pictures(listed(root / "train", classes), test, tuple(classes), 224)


def _archives() -> tuple[Archive, ...]:
    from torchvision.datasets.imagenet import ARCHIVE_META

    makes = {"devkit": "imagenet/meta.bin", "train": "imagenet/train", "val": "imagenet/val"}
    return tuple(Archive(f"imagenet/{ARCHIVE_META[k][0]}", None, ARCHIVE_META[k][1], made) for k, made in makes.items())


def _unpack(path: Path, fresh: Path, made: Path) -> None:
    """Sort the training archives into a folder for each class, and the validation pictures by the devkit's list."""
    from torchvision.datasets import imagenet

    (fresh / path.name).symlink_to(path.resolve())
    if made.name == "meta.bin":
        imagenet.parse_devkit_archive(fresh)
    elif made.name == "train":
        imagenet.parse_train_archive(fresh)
    else:
        imagenet.parse_val_archive(fresh, wnids=imagenet.load_meta_file(path.parent)[1])


ENTRIES = (
    DataSet(
        name="imagenet",
        read=_read,
        what="ILSVRC 2012; its validation set is the test set",
        counts=(1_281_167, 50_000, 1000),
        licence="non-commercial research, by registration",
        home="https://image-net.org",
        inside=("imagenet/train", "train"),
        archives=_archives,
        unpack=_unpack,
        check=by_official_lists,
    ),
)
