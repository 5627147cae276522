"""Data sets: read in their official formats, split by the seed, made noisy, augmented in batches."""

from .examples import Examples, InMemory, Source, Splits, whole
from .splits import load_splits

__all__ = ["Examples", "InMemory", "Source", "Splits", "load_splits", "whole"]
