"""Jobs in parallel processes: the runs of a study and the trials of a tuning. A process reports by events."""
