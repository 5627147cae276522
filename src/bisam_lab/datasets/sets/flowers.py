"""Oxford flowers (Nilsback & Zisserman, 2008): 1020 + 1020 pictures to train and validate with, 6149 to test."""

from pathlib import Path

from ..checks import by_official_lists
from ..contents import Pictures
from ..entry import Archive, DataSet

__all__ = ["ENTRIES"]


def _read(data_dir: Path) -> Pictures:
    from torchvision.datasets import Flowers102

    from ..pictures import files

    train, val, test = (Flowers102(data_dir, split) for split in ("train", "val", "test"))
    pool = files([*train._image_files, *val._image_files], [*train._labels, *val._labels])
    classes = tuple(f"flower {k + 1}" for k in range(1 + max(pool.y.tolist())))
    return Pictures(pool, files(test._image_files, test._labels), classes, 224)


def _archives() -> tuple[Archive, ...]:
    from torchvision.datasets import Flowers102

    home, makes = Flowers102._download_url_prefix, {"image": "flowers-102/jpg"}
    return tuple(
        Archive(f"flowers-102/{file}", home + file, digest, makes.get(key))
        for key, (file, digest) in Flowers102._file_dict.items()
    )


ENTRIES = (
    DataSet(
        name="flowers",
        read=_read,
        what="Oxford flowers",
        counts=(2040, 6149, 102),
        licence="none stated",
        home="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
        inside=("flowers-102",),
        archives=_archives,
        check=by_official_lists,
    ),
)
