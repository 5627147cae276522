"""What a recipe may name besides data and networks: methods, base optimizers and metrics, one entry each."""
