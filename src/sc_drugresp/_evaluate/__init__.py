"""Honest evaluation: folds, naive baselines, leaks, tables."""
