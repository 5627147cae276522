"""What survives: measures of a run's network beside its score, each in a file of its own.

All are taken on the test set, of the weights that validation has selected, after the run. None of them selects
anything. :mod:`bisam_lab.registry.measures` lists them; ``taking`` takes those that a recipe asks for, of a
``subject``.
"""
