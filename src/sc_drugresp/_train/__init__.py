"""Fitting on arrays and tokens. Never sees AnnData."""

from __future__ import annotations

from .heads import balanced_weights, fit_head

__all__ = ["balanced_weights", "fit_head"]
