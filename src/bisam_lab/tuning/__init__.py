"""Tuning: a few numbers of a recipe, searched by Optuna on validation, in a folder or a shared storage.

``rho_range`` finds the radii to start from, without Optuna.
"""
