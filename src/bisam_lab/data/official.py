"""The official files of the sets: whence, under which names, with which checksums; got, checked and unpacked."""

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..recipe import RecipeError
from .glue import TASKS
from .human import FILES

__all__ = ["Archive", "archives", "download", "fetch", "md5", "prepare"]

_CIFAR_N = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """One official file.

    Attributes:
        path: under --data-dir.
        url: None where its home wants registration.
        md5: as published by its authors or kept by torchvision; None where there is none.
        makes: what unpacking it leaves under --data-dir; None where it is read as it is.
    """

    path: str
    url: str | None
    md5: str | None
    makes: str | None = None


def archives(name: str) -> tuple[Archive, ...]:
    """Return the official files of a set, by torchvision's tables, and none for sets without."""
    from torchvision import datasets
    from torchvision.datasets import imagenet

    if name in ("cifar10", "cifar100"):
        of = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        return (Archive(of.filename, of.url, of.tgz_md5, of.base_folder),)
    if name == "fashion-mnist":
        home, folder = datasets.FashionMNIST.mirrors[0], "FashionMNIST/raw"
        resources = datasets.FashionMNIST.resources
        return tuple(Archive(f"{folder}/{f}", home + f, digest, f"{folder}/{Path(f).stem}") for f, digest in resources)
    if name == "svhn":
        return tuple(Archive(f, url, digest) for url, f, digest in map(datasets.SVHN.split_list.get, ("train", "test")))
    if name == "flowers":
        home, named = datasets.Flowers102._download_url_prefix, datasets.Flowers102._file_dict
        made = {"image": "flowers-102/jpg"}
        return tuple(Archive(f"flowers-102/{f}", home + f, digest, made.get(k)) for k, (f, digest) in named.items())
    if name == "pets":
        named = {Path(url).name: (url, digest) for url, digest in datasets.OxfordIIITPet._RESOURCES}
        return tuple(
            Archive(f"oxford-iiit-pet/{f}", url, digest, f"oxford-iiit-pet/{f.partition('.')[0]}")
            for f, (url, digest) in named.items()
        )
    if name == "imagenet":
        made = {"train": "imagenet/train", "val": "imagenet/val", "devkit": "imagenet/meta.bin"}
        named = imagenet.ARCHIVE_META
        return tuple(Archive(f"imagenet/{named[k][0]}", None, named[k][1], made[k]) for k in ("devkit", "train", "val"))
    if name == "cifar-n":
        return tuple(Archive(f"cifar-n/{f}", f"{_CIFAR_N}/{f}", None) for f in FILES.values())
    return ()


def fetch(name: str, data_dir: Path, tell: Callable[[str], None] = lambda line: None) -> None:
    """Get a set's official files, check them, and unpack them; what is here and whole is not got again.

    Raises:
        RecipeError: a set that cannot be had so, a file that does not come, or one that is not the official one.
    """
    if name.startswith("glue:"):
        _fetch_glue(name.partition(":")[2], data_dir, tell)
        return
    wanted = archives(name)
    if not wanted:
        raise RecipeError(f"{name} has no official files to fetch")
    for archive in wanted:
        path = data_dir / archive.path
        if archive.url is None:
            raise RecipeError(
                "imagenet is given to registered researchers alone: get ILSVRC2012_{devkit_t12.tar.gz,img_train.tar,"
                f"img_val.tar}} from https://image-net.org into {path.parent}, then `bisam data prepare imagenet`"
            )
        if path.is_file() and archive.md5 in (None, md5(path)):
            tell(f"{path}: here already")
        elif archive.makes is None or not (data_dir / archive.makes).exists():
            tell(f"{path}: from {archive.url}")
            download(archive.url, path, archive.md5)
    prepare(name, data_dir, tell)


def _fetch_glue(task: str, data_dir: Path, tell: Callable[[str], None]) -> None:
    """Write a task's parquet files, with the help of Hugging Face datasets."""
    if task not in TASKS:
        raise RecipeError(f"glue:{task} is none of {', '.join(f'glue:{t}' for t in TASKS)}")
    from datasets import load_dataset

    try:
        parts = load_dataset("nyu-mll/glue", task)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"Hugging Face datasets cannot get nyu-mll/glue {task}: {error}") from None
    folder = data_dir / "glue" / TASKS[task].folder
    folder.mkdir(parents=True, exist_ok=True)
    for split, theirs in (("train", "train"), ("dev", "validation_matched" if task == "mnli" else "validation")):
        parts[theirs].to_parquet(folder / f"{split}.parquet")
        tell(f"{folder / split}.parquet: {len(parts[theirs])} examples")


def download(url: str, path: Path, digest: str | None) -> None:
    """Get one file: it appears under its name whole and checked, or not at all.

    Raises:
        RecipeError: it does not come, or has another MD5 than ``digest``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as answer:
            shutil.copyfileobj(answer, file, _BLOCK)
            length = answer.headers.get("Content-Length")
        if length is not None and os.path.getsize(fresh) != int(length):
            raise RecipeError(f"{url} came to {os.path.getsize(fresh)} bytes of {length}: try again")
        if digest is not None and md5(Path(fresh)) != digest:
            raise RecipeError(f"{url} is not the official file: its MD5 is {md5(Path(fresh))}, not {digest}")
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise RecipeError(f"{url} does not come: {error}") from None
    finally:
        Path(fresh).unlink(missing_ok=True)


def md5(path: Path) -> str:
    """Return the MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def prepare(name: str, data_dir: Path, tell: Callable[[str], None] = lambda line: None) -> None:
    """Unpack a set's official files, those that are here and not unpacked yet.

    Raises:
        RecipeError: neither a file nor what it makes is here, or a file is not the official one.
    """
    for archive in archives(name):
        path = data_dir / archive.path
        if archive.makes is not None and (data_dir / archive.makes).exists():
            tell(f"{data_dir / archive.makes}: here already")
            continue
        if not path.is_file():
            raise RecipeError(f"no {path}: `bisam data fetch {name} --data-dir {data_dir}` gets it")
        if archive.md5 is not None and md5(path) != archive.md5:
            raise RecipeError(f"{path} is not the official file: its MD5 is {md5(path)}, not {archive.md5}")
        if archive.makes is None:
            tell(f"{path}: here already")
        else:
            tell(f"{path}: unpacking")
            _unpack(name, path, data_dir / archive.makes)


def _unpack(name: str, path: Path, made: Path) -> None:
    """Unpack beside, then put in place: ``made`` is whole or not there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unpacking.") as folder:
        fresh = Path(folder)
        if name == "imagenet":
            _unpack_imagenet(path, fresh, made)
        elif path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                archive.extractall(fresh, filter="data")
        else:
            with gzip.open(path) as source, (fresh / made.name).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
        if not (fresh / made.name).exists():
            raise RecipeError(f"{path} holds no {made.name}")
        os.replace(fresh / made.name, made)


def _unpack_imagenet(path: Path, fresh: Path, made: Path) -> None:
    """Sort the training archives into a folder a class, and the validation pictures by the devkit's list."""
    from torchvision.datasets import imagenet

    if made.name == "meta.bin":
        (fresh / path.name).symlink_to(path.resolve())
        imagenet.parse_devkit_archive(fresh)
        return
    (fresh / path.name).symlink_to(path.resolve())
    if made.name == "train":
        imagenet.parse_train_archive(fresh)
    else:
        imagenet.parse_val_archive(fresh, wnids=imagenet.load_meta_file(path.parent)[1])
