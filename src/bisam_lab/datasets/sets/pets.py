"""Oxford-IIIT pets (Parkhi et al., 2012): 3680 pictures to train and validate with, 3669 to test."""

from pathlib import Path

from ..checks import by_official_lists
from ..contents import Pictures
from ..entry import Archive, DataSet

__all__ = ["ENTRIES"]

_FOLDER = "oxford-iiit-pet"


def _read(data_dir: Path) -> Pictures:
    from torchvision.datasets import OxfordIIITPet

    from ..pictures import files

    train, test = (OxfordIIITPet(data_dir, split) for split in ("trainval", "test"))
    return Pictures(files(train._images, train._labels), files(test._images, test._labels), tuple(train.classes), 224)


def _archives() -> tuple[Archive, ...]:
    from torchvision.datasets import OxfordIIITPet

    named = {Path(url).name: (url, digest) for url, digest in OxfordIIITPet._RESOURCES}
    return tuple(
        Archive(f"{_FOLDER}/{file}", url, digest, f"{_FOLDER}/{file.partition('.')[0]}")
        for file, (url, digest) in named.items()
    )


ENTRIES = (
    DataSet(
        name="pets",
        read=_read,
        what="Oxford-IIIT pets, cats and dogs by breed",
        counts=(3680, 3669, 37),
        licence="CC BY-SA 4.0",
        home="https://www.robots.ox.ac.uk/~vgg/data/pets",
        inside=(_FOLDER,),
        archives=_archives,
        check=by_official_lists,
    ),
)
