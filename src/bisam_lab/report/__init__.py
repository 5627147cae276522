"""Reports of studies: one HTML page that needs no other file; and a table and a figure in each study's folder."""

from .collect import ReportData, collect
from .page import render, write_page

__all__ = ["ReportData", "collect", "render", "write_page"]
