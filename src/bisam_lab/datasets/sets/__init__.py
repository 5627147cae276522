"""The shipped data sets. Each module defines ``ENTRIES``; :mod:`bisam_lab.datasets.registry` collects them."""
