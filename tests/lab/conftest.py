"""Real data for the tests that want them, unpacked once from the folder beside the repository; and small ones."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab.painting import CLASSES, paint

PACKED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """Return a function that unpacks a set and returns the folder; it skips where the packed data are absent."""

    def unpack(name):
        if not (PACKED / "unpack.py").is_file():
            pytest.skip(f"real data: no {PACKED} beside the repository")
        cache = Path(tempfile.gettempdir()) / f"bisam-test-data-{os.getuid()}" / name
        if not cache.is_dir():
            cache.parent.mkdir(exist_ok=True)
            fresh = Path(tempfile.mkdtemp(dir=cache.parent))
            subprocess.run(
                [sys.executable, str(PACKED / "unpack.py"), str(fresh), name], check=True, capture_output=True
            )
            try:
                fresh.rename(cache)  # whole or not at all; a process beside this one may have been faster
            except OSError:
                assert cache.is_dir()
        return cache

    return unpack


@pytest.fixture(scope="session")
def painted(tmp_path_factory):
    """Three classes of twenty, each picture of another size, in three formats."""
    root = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(CLASSES):
        for k in range(20):
            suffix = ("jpg", "PNG", "JPEG")[k % 3]
            paint(root / name / f"{k:02}.{suffix}", 100 * label + k, (20 + k, 44 - k))
    return root


@pytest.fixture
def sst2(tmp_path):
    """A data folder with forty training texts of SST-2 and two to test."""
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    lines = [f"{('a fine' if k % 2 else 'a dull')} film number {k}\t{k % 2}" for k in range(40)]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    (folder / "dev.tsv").write_text("\n".join(["sentence\tlabel", "a fine dull thing\t1", "dull\t0"]) + "\n")
    return tmp_path
