"""Honest evaluation: design, folds, naive baselines, leaks, tables."""
