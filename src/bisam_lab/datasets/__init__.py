"""The data sets: what each one is, where its official files are, and how they are read.

Each file in ``sets/`` holds the entries of one data set or a few. Everything else reads these entries: the names that a
recipe may use, ``bisam data``, the noise, the training.
"""

from .contents import Contents, Images, Pictures, Sample, Texts
from .entry import Archive, DataSet

__all__ = ["Archive", "Contents", "DataSet", "Images", "Pictures", "Sample", "Texts"]
