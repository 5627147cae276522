"""The official files of a data set: fetched from their home, checked, and unpacked."""

import gzip
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..datasets.checks import md5
from ..datasets.entry import Archive, Tell
from ..errors import RecipeError
from .find import find

__all__ = ["download", "fetch", "prepare"]

_BLOCK = 1 << 20


def _silent(line: str) -> None:
    """Report nothing."""


def fetch(name: str, data_dir: Path, tell: Tell = _silent) -> None:
    """Fetch a set's official files, check them, and unpack them. Files that are here and whole are not fetched again.

    Raises:
        RecipeError: the set has no files to fetch or needs registration, a download fails, or a file is not official.
    """
    entry = find(name)
    if entry.fetch is not None:
        entry.fetch(data_dir, tell)
        return
    archives = entry.archives()
    if not archives:
        raise RecipeError(f"{name} has no official files to fetch")
    for archive in archives:
        path = data_dir / archive.path
        if archive.url is None:
            raise RecipeError(
                f"{name} is given to registered researchers alone: get "
                f"{', '.join(Path(a.path).name for a in archives)} from {entry.home} into {path.parent}, then "
                f"`bisam data prepare {name}`"
            )
        if path.is_file() and archive.md5 in (None, md5(path)):
            tell(f"{path}: here already")
        elif archive.makes is None or not (data_dir / archive.makes).exists():
            tell(f"{path}: from {archive.url}")
            download(archive.url, path, archive.md5)
    prepare(name, data_dir, tell)


def download(url: str, path: Path, digest: str | None) -> None:
    """Download one file. It appears under its name whole and checked, or not at all.

    Raises:
        RecipeError: the download fails, or the file has another MD5 than ``digest``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as answer:
            shutil.copyfileobj(answer, file, _BLOCK)
            length = answer.headers.get("Content-Length")
        if length is not None and os.path.getsize(fresh) != int(length):
            raise RecipeError(f"{url} ended after {os.path.getsize(fresh)} of {length} bytes: try again")
        if digest is not None and md5(Path(fresh)) != digest:
            raise RecipeError(f"{url} is not the official file: its MD5 is {md5(Path(fresh))}, not {digest}")
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise RecipeError(f"{url} cannot be downloaded: {error}") from None
    finally:
        Path(fresh).unlink(missing_ok=True)


def prepare(name: str, data_dir: Path, tell: Tell = _silent) -> None:
    """Unpack the official files of a set that are here and not unpacked yet.

    Raises:
        RecipeError: a file and what it makes are both missing, or a file is not the official one.
    """
    entry = find(name)
    unpack = entry.unpack or _unpack
    for archive in entry.archives():
        path = data_dir / archive.path
        if archive.makes is not None and (data_dir / archive.makes).exists():
            tell(f"{data_dir / archive.makes}: here already")
            continue
        _check(name, archive, data_dir)
        if archive.makes is None:
            tell(f"{path}: here already")
        else:
            tell(f"{path}: unpacking")
            _put_in_place(unpack, path, data_dir / archive.makes)


def _check(name: str, archive: Archive, data_dir: Path) -> None:
    path = data_dir / archive.path
    if not path.is_file():
        raise RecipeError(f"no {path}: `bisam data fetch {name} --data-dir {data_dir}` gets it")
    if archive.md5 is not None and md5(path) != archive.md5:
        raise RecipeError(f"{path} is not the official file: its MD5 is {md5(path)}, not {archive.md5}")


def _put_in_place(unpack: Callable[[Path, Path, Path], None], path: Path, made: Path) -> None:
    """Unpack into a folder beside, then move ``made`` to its place: it is whole or not there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unpacking.") as folder:
        fresh = Path(folder)
        unpack(path, fresh, made)
        if not (fresh / made.name).exists():
            raise RecipeError(f"{path} holds no {made.name}")
        os.replace(fresh / made.name, made)


def _unpack(path: Path, fresh: Path, made: Path) -> None:
    """Unpack a tar archive, or a single file that gzip has packed."""
    if path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            archive.extractall(fresh, filter="data")
    else:
        with gzip.open(path) as source, (fresh / made.name).open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)
