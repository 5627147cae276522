"""Tuning: Optuna searches a few numbers of a recipe for the best validation score."""
