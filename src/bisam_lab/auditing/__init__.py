"""Audits: which mistakes do adversaries cause, at fixed weights?"""

from .audit import BATCHES, RHOS, Audit, Header, audit
from .rows import Row
from .sharpness import Sharpness

__all__ = ["BATCHES", "RHOS", "Audit", "Header", "Row", "Sharpness", "audit"]
