"""Shapes of the functions that training is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Embed: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`embed(train, test)`: embeddings of two sets of rows; anything fitted is fitted to `train`."""
