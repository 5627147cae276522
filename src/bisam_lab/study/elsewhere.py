"""Runs of a study that other processes train."""

import time
from collections.abc import Callable

from ..run.result import Run
from .claim import is_claimed
from .folder import Study
from .hold import is_held

__all__ = ["wait_for_others"]


def wait_for_others(study: Study, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return as soon as one of the runs that other processes train has ended, or has lost its process.

    Args:
        study: some of its runs are not finished.
        sleep: is called with the seconds between two looks.
    """
    missing = set(study.runs) - set(study.results())
    while missing and all(_is_held(study, run) for run in missing):
        sleep(2.0 if study.remote is None else 15.0)
        if missing & set(study.results()):
            return


def _is_held(study: Study, run: Run) -> bool:
    there = study.there(run)
    return is_held(study.path(run)) or (there is not None and is_claimed(there))
