"""Studies: methods x seeds in a folder, trained in parallel."""

from .folder import Study, results_of
from .pool import Event, Finished, Note, Progress, default_jobs, run_all

__all__ = ["Event", "Finished", "Note", "Progress", "Study", "default_jobs", "results_of", "run_all"]
