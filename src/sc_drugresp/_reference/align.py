"""Pseudobulks on the scale of the lines of a reference: standardized within the sample, minus the shift of the platform.

Nothing is estimated from the cohort itself: the values of a sample do not depend on which other samples are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scale:
    """Genes of a reference: mean and spread over its lines, each of shape `(n_genes,)`."""

    mean: np.ndarray
    spread: np.ndarray


def log_cpm(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """`log2(CPM + 1)` of pseudobulks, shape `(n, n_genes)`; totals are those of all genes, known to the model or not."""
    return np.log2(counts / np.maximum(totals, 1e-12)[:, None] * 1e6 + 1)


def within_sample(values: np.ndarray, seen: np.ndarray, scale: Scale) -> np.ndarray:
    """Standardize each sample over the genes that it has.

    A line of the reference has mean 0 and spread 1 over all genes of the model. Over a part of them it has what their means
    and spreads over lines imply: that is what the sample is brought to, so that missing genes do not move the others.

    Returns
    -------
    Shape `(n, n_genes)`, NaN in genes that were not seen.

    Raises
    ------
    ValueError
        A sample is the same in all genes.
    """
    part = values[:, seen]
    spread = part.std(axis=1, keepdims=True)
    if (spread == 0).any():
        msg = "A group has the same value in all genes of the model: its matrix is empty or constant."
        raise ValueError(msg)
    width = np.sqrt(scale.mean[seen].var() + np.square(scale.spread[seen]).mean())
    out = np.full(values.shape, np.nan)
    out[:, seen] = (part - part.mean(axis=1, keepdims=True)) / spread * width + scale.mean[seen].mean()
    return out


def standardize(values: np.ndarray, scale: Scale, shift: np.ndarray | None) -> np.ndarray:
    """Take off the shift of the platform and standardize genes over the lines of the reference.

    A gene that was not seen, or whose shift is not known where others are, is put at its mean and so says nothing.

    Parameters
    ----------
    values
        From :func:`within_sample`.
    shift
        Shape `(n_genes,)`, NaN where unknown; `None` if the platform is not known at all.
    """
    moved = values if shift is None else values - shift
    return np.nan_to_num((moved - scale.mean) / scale.spread, nan=0.0)


def shift_and_rest(values: np.ndarray, bulk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference between samples and the bulk profiles of the same lines, and what it leaves in a line it was not taken from.

    Parameters
    ----------
    values, bulk
        Shape `(n_lines, n_genes)`, at least two lines, on the scale of :func:`within_sample`.

    Returns
    -------
    Shape `(n_genes,)`; and difference of each line minus the mean of the other lines, shape `(n_lines, n_genes)`.
    """
    difference = values - bulk
    mean = difference.mean(axis=0)
    return mean, (difference - mean) * len(difference) / (len(difference) - 1)
