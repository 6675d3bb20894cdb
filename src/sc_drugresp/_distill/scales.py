"""Means and spreads of inputs and targets over the cells to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models._refits import column_sums

if TYPE_CHECKING:
    from scipy import sparse

FLOOR = 0.1
"""Smallest spread, in units of the median one: a gene that hardly varies must not be blown up in other cells."""


@dataclass(frozen=True)
class Scales:
    """Means and spreads, float32."""

    input_mean: np.ndarray
    input_scale: np.ndarray
    target_mean: np.ndarray
    target_scale: np.ndarray

    @classmethod
    def of(cls, profiles: sparse.csr_matrix, targets: np.ndarray) -> Scales:
        """Those of some rows."""
        n = profiles.shape[0]
        first = column_sums(profiles) / n
        second = np.bincount(profiles.indices, np.square(profiles.data, dtype=np.float64), profiles.shape[1]) / n
        spread = np.sqrt(np.maximum(second - first**2, 0))
        level = targets.mean(axis=0, dtype=np.float64)
        width = targets.std(axis=0, dtype=np.float64)
        return cls(*(part.astype(np.float32) for part in (first, _floored(spread), level, _floored(width))))

    def standardized(self, targets: np.ndarray) -> np.ndarray:
        """Targets in units of their spread."""
        return (targets - self.target_mean) / self.target_scale

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Back on the scale of the teacher."""
        return values * self.target_scale + self.target_mean


def _floored(spread: np.ndarray) -> np.ndarray:
    some = spread[spread > 0]
    return np.maximum(spread, FLOOR * np.median(some)) if len(some) else np.ones_like(spread)
