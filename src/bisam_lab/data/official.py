"""The official files of a data set: fetched from their home, checked, and unpacked."""

import gzip
import http.client
import lzma
import os
import re
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ..datasets.checks import md5
from ..datasets.entry import Archive, Tell
from ..errors import RecipeError, one_line
from .find import find

__all__ = ["download", "fetch", "prepare"]

_BLOCK = 1 << 20
#: Seconds without an answer after which a server is given up, and bytes of a file whose length is not told.
TIMEOUT, LARGEST = 60, 20_000_000_000
#: How many times its own size an archive may unpack to. The official ones have 1 to 3: pictures are packed already.
GROWTH = 10


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
        RecipeError: the download fails, the answer is a web page, or the file has another MD5 than ``digest``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for block in _blocks(url):
                file.write(block)
        if digest is not None and md5(Path(fresh)) != digest:
            raise RecipeError(f"{url} is not the official file: its MD5 is {md5(Path(fresh))}, not {digest}")
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    finally:
        Path(fresh).unlink(missing_ok=True)


def _blocks(url: str) -> Iterator[bytes]:
    """Yield what a server sends, and check that it is all and no more than it said.

    Raises:
        RecipeError: the server does not answer, not to the end, or with a web page.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            length = _length(answer.headers.get("Content-Length"))
            done = 0
            while block := answer.read(_BLOCK):
                if done == 0 and _is_page(answer.headers.get("Content-Type"), block):
                    raise RecipeError(f"{url} answers with a web page: log in to this network, or try again later")
                done += len(block)
                if done > (LARGEST if length is None else length):
                    raise RecipeError(f"{url} sends more than the {length or LARGEST:,} bytes that it may: try again")
                yield block
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the server's answer
        said = one_line(str(error) or type(error).__name__, 80)
        raise RecipeError(f"{url} cannot be downloaded: {said}; try again, or put the file there yourself") from None
    if length is not None and done != length:
        raise RecipeError(f"{url} ended after {done:,} of {length:,} bytes: try again")


def _length(header: str | None) -> int | None:
    """Return what the header says; None: it says nothing that can be used."""
    return int(header) if header is not None and re.fullmatch(r"[0-9]{1,15}", header.strip()) else None


def _is_page(kind: str | None, first: bytes) -> bool:
    """Whether the answer is a page for people, such as the log-in page of a hotel's network."""
    return (kind or "").startswith("text/html") or first[:200].lstrip().lower().startswith(
        (b"<!doctype html", b"<html")
    )


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
    """Unpack a tar archive, or a single file that gzip has packed.

    Raises:
        RecipeError: it is damaged, or holds far more than an official archive of its size.
    """
    most = GROWTH * path.stat().st_size + _BLOCK
    try:
        if path.suffixes[-2:-1] == [".tar"] or path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                archive.extractall(fresh, members=_limited(archive, path, most), filter="data")
        else:
            with gzip.open(path) as source, (fresh / made.name).open("wb") as target:
                while block := source.read(_BLOCK):
                    _check_size(path, target.tell() + len(block), most)
                    target.write(block)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise RecipeError(f"{path} cannot be unpacked ({one_line(str(error), 80)}): delete it and fetch it") from None


def _limited(archive: tarfile.TarFile, path: Path, most: int) -> Iterator[tarfile.TarInfo]:
    """Yield the archive's members while they are not too many or too large."""
    size = 0
    for member in archive:
        size += member.size + 512
        _check_size(path, size, most)
        yield member


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise RecipeError(f"{path} unpacks to more than {most:,} bytes, {GROWTH} times its own: no official file does")
