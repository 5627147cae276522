"""Real data for the tests that want them, unpacked once from the folder beside the repository."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

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
