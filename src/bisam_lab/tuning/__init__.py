"""Tuning: Optuna searches a few numbers of a recipe for the best validation score.

``rho_range`` finds the radii to start from, without Optuna.
"""
