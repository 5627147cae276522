"""Settings of the whole suite."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs in parallel processes, and so do some of its tests

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the suite was started behind an &: its commands heed Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Whether the session lacks tests that were collected.
DESELECTED = pytest.StashKey[bool]()


def pytest_deselected(items):
    for item in items[:1]:
        item.config.stash[DESELECTED] = True


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
