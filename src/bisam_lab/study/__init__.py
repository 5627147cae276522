"""Studies: methods x seeds in a folder, trained in parallel processes."""
