"""Fitting on arrays and tokens. Never sees AnnData."""

from __future__ import annotations

from .crossfit import cross_fit, fixed
from .heads import balanced_weights, fit_head

__all__ = ["balanced_weights", "cross_fit", "fit_head", "fixed"]
