"""Paired comparison of methods over seeds: tests, Holm's correction, the seeds needed, and a verdict in words."""

from .comparison import Comparison, compare, holm
from .equivalence import Equivalence, tost
from .power import detectable, seeds_needed
from .tests import TESTS, PairedTest
from .verdicts import verdict

__all__ = [
    "TESTS",
    "Comparison",
    "Equivalence",
    "PairedTest",
    "compare",
    "detectable",
    "holm",
    "seeds_needed",
    "tost",
    "verdict",
]
