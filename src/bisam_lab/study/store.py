"""A folder in an object storage, such as ``s3://bucket/study``, through fsspec.

An object is put whole or not at all, and the storage can create one unless there is one of its name. All that several
machines have to agree on rests on that.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RecipeError, one_line
from .files import temporary

__all__ = ["Store", "StoreError"]

#: File systems that can create an object unless there is one, and the package that each is in.
_PACKAGES = {"s3": "'bisam[s3]'", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
#: Objects that are read in one call: each is a request, and they go out together.
_TOGETHER = 200
#: Seconds for which a storage that does not answer is asked again, and the longest pause between.
PATIENCE, PAUSE = 120.0, 15.0

T = TypeVar("T")


class StoreError(OSError):
    """The storage does not answer, or refuses."""


class Store:
    """A folder of objects. All names are relative to it, with ``/`` between their parts.

    Args:
        url: of the folder.
        patience: seconds for which a storage that does not answer is asked again.

    Raises:
        RecipeError: it names no folder in a bucket, or a storage that cannot be used.
    """

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self.url, self._patience = url.rstrip("/"), patience
        protocol, _, rest = self.url.partition("://")
        if protocol not in _PACKAGES and protocol != "memory":
            known = ", ".join(f"{name}://" for name in _PACKAGES)
            raise RecipeError(f"--out {url}: no storage that can be used: name a folder, or one at {known}")
        if not all(rest.split("/")) or "/" not in rest:
            raise RecipeError(f"--out {url} names no folder in a bucket: write {protocol}://BUCKET/FOLDER")
        try:
            self._system = _system(protocol)
        except ImportError:
            raise RecipeError(f"--out {url} needs a package: pip install {_PACKAGES[protocol]}") from None
        self._root = str(self._system._strip_protocol(self.url))

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; return whether it has this content."""
        try:
            self._put(name, content, mode="create")
        except FileExistsError:
            return self.read(name) == content  # an answer that was lost has made it
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write an object, over one that is there."""
        self._put(name, content)

    def _put(self, name: str, content: bytes, **options: str) -> None:
        try:
            self._ask(self._system.pipe_file, self._path(name), content, **options)
        except FileNotFoundError as error:
            raise StoreError(self.complaint(error)) from error

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None: there is none."""
        try:
            return bytes(self._ask(self._system.cat_file, self._path(name)))
        except FileNotFoundError:
            return None

    def read_all(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of objects; one that is there no more is left out."""
        left = list(names)
        while left:
            now, left = left[:_TOGETHER], left[_TOGETHER:]
            paths = [self._path(name) for name in now]
            found = self._ask(self._contents, paths)
            yield from ((name, found[path]) for name, path in zip(now, paths, strict=True) if path in found)

    def _contents(self, paths: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes | Exception] = self._system.cat(paths, on_error="return")
        for content in found.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return {path: content for path, content in found.items() if isinstance(content, bytes)}

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object into a file, which is complete or not there; return whether there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = temporary(path)
        try:
            self._ask(self._system.get_file, self._path(name), str(fresh))
            fresh.replace(path)
        except FileNotFoundError:
            return False
        finally:
            fresh.unlink(missing_ok=True)
        return True

    def send(self, path: Path, name: str) -> None:
        """Copy a file into an object."""
        self._ask(self._system.put_file, str(path), self._path(name))

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(self._system.rm_file, self._path(name))

    def list(self, below: str = "") -> dict[str, str]:
        """Return the names of all objects below a folder, and what changes with the content of each."""
        try:
            found: Mapping[str, Any] = self._ask(self._system.find, self._path(below), detail=True)
        except FileNotFoundError as error:  # the bucket
            raise StoreError(self.complaint(error)) from error
        marks = {path[len(self._root) + 1 :]: _mark(info) for path, info in found.items()}
        return {name: mark for name, mark in marks.items() if not {"", ".", ".."} & set(name.split("/"))}

    def names(self) -> set[str]:
        """Return the names of the objects and folders at the top."""
        try:
            return {path.rsplit("/", 1)[-1] for path in self._ask(self._system.ls, self._root, detail=False)}
        except FileNotFoundError:  # the folder, or the bucket
            return set(self.list())

    def mark(self, name: str) -> str:
        """Return what changes with the content of an object; empty: there is none."""
        try:
            return _mark(self._ask(self._system.info, self._path(name)))
        except FileNotFoundError:
            return ""

    def age(self, name: str) -> float:
        """Return the seconds since an object was written, by the storage's own clock; infinity: there is none."""
        probe = f"{name}.{time.time_ns()}"
        try:
            written = self._modified(name)
            self.write(probe, b"")
            return (self._modified(probe) - written).total_seconds()
        except FileNotFoundError:
            return float("inf")
        finally:
            self.remove(probe)

    def _modified(self, name: str) -> datetime:
        found: datetime = self._ask(self._system.modified, self._path(name))
        return found

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _ask(self, call: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call the file system, again and again while the storage does not answer.

        Raises:
            FileNotFoundError: there is no such object, or no such bucket.
            FileExistsError: there is such an object.
            StoreError: it refuses, or has not answered for too long.
        """
        end, pause = time.monotonic() + self._patience, 0.5
        while True:
            try:
                return call(*args, **options)
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:  # each file system has errors of its own
                refused = isinstance(error, PermissionError)
                if refused or time.monotonic() + pause > end:
                    raise StoreError(self.complaint(error)) from error
            time.sleep(pause)
            pause = min(2 * pause, PAUSE)

    def complaint(self, error: Exception) -> str:
        """Say what is wrong with the storage, and what decides it."""
        said = one_line(str(error) or type(error).__name__, 60)
        where = "AWS_ENDPOINT_URL and the AWS credentials" if self.url.startswith("s3:") else "its credentials"
        return f"{self.url}: the storage refuses or does not answer ({said}): check bucket, network, {where}"


@cache
def _system(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol, use_listings_cache=False)


def _mark(info: Mapping[str, Any]) -> str:
    tags = [info[key] for key in ("ETag", "etag", "LastModified", "last_modified", "mtime", "created") if key in info]
    tag = tags[0] if tags else ""
    return f"{info.get('size')} {tag.timestamp() if isinstance(tag, datetime) else tag}"
