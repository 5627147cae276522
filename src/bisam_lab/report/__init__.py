"""A report: one HTML file, complete in itself, of one study or of several."""

from .collect import Report, collect, plain
from .page import render, write

__all__ = ["Report", "collect", "plain", "render", "write"]
