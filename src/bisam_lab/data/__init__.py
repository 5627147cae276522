"""Data on their way into training: a data set is read, split by the seed, made noisy, and augmented in batches.

What the data sets are, and how each is read, is in :mod:`bisam_lab.datasets`.
"""

from .examples import Examples, InMemory, Source, Splits, whole
from .splits import load_splits

__all__ = ["Examples", "InMemory", "Source", "Splits", "load_splits", "whole"]
