"""Seeds from integers and generators; global random states are never read or changed."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .kinds import Seed

Rng: TypeAlias = Seed | np.random.Generator


def short_seed(seed: int) -> int:
    """A seed for generators of numpy's first kind, which scikit-learn and scanpy use: they take 32 bits."""
    return seed % 2**32


def seed_of(rng: Rng) -> int:
    """The seed itself, or one drawn from a generator, so that every function takes both.

    Raises
    ------
    TypeError
        `rng` is neither an integer nor a generator.
    """
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**31))
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        msg = f"`rng` must be an integer seed or a numpy.random.Generator, found {rng!r}."
        raise TypeError(msg)
    return int(rng)
