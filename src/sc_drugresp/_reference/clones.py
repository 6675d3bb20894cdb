"""From clones to the tumor: mean and worst clone of each drug, and pairs of drugs by the clones that they cover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


PRIOR_CELLS = 20
"""Cells of the prior by which the worst clone is shrunk to the mean."""
MIN_SHARE = 0.05
"""Share of the cells below which a clone cannot be the worst one."""
LEAST_GAIN = 1e-6
"""Of a pair over its better drug, in units of `z`."""
NO_SYNERGY = "no synergy modelled: each clone responds to the better of the two drugs"


def combine_clones(z: np.ndarray, n_cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Response of a tumor from those of its clones.

    The abundance-weighted mean is the score. The worst clone, shrunk to the mean by `n / (n + 20)` as in
    :func:`~sc_drugresp.tl.aggregate`, stands beside it: in simulated mixtures it orders drugs by the true worst clone hardly
    better than the mean does, and it understates how resistant that clone is (see the page of the benchmark).

    Parameters
    ----------
    z
        Shape `(n_clones, n_drugs)`; higher is more resistant.
    n_cells
        Cells of each clone.

    Returns
    -------
    Mean over clones and shrunk value of the worst clone, each of shape `(n_drugs,)`, and the number of the worst clone.
    """
    weight = n_cells / n_cells.sum()
    mean = weight @ z
    shrunk = mean + (n_cells / (n_cells + PRIOR_CELLS))[:, None] * (z - mean)
    eligible = weight >= min(MIN_SHARE, weight.max())
    shrunk = np.where(eligible[:, None], shrunk, -np.inf)
    worst = np.argmax(shrunk, axis=0)
    return mean, shrunk[worst, np.arange(z.shape[1])], worst


def rank_pairs(z: np.ndarray, n_cells: np.ndarray, drugs: Sequence[str], *, n_pairs: int = 20) -> pd.DataFrame:
    """Pairs of drugs whose better partner reaches the clones best; no synergy is modelled.

    Each clone is given the lower `z` of the two drugs. Pairs are ordered by the mean of that over clones, weighted by
    abundance, as single drugs are. Pairs of which one drug is the better one in every clone are left out, so that a tumor of
    one clone has no pairs.

    Parameters
    ----------
    z
        Shape `(n_clones, n_drugs)`, without NaN.
    n_cells
        Cells of each clone.
    drugs
        Names of the columns.
    n_pairs
        Rows to return.

    Returns
    -------
    `drug_1`, `drug_2`, `mean_z`, `worst_z` (the worst clone, shrunk), `gain_over_best_single` (mean of the better single
    drug minus that of the pair), `note`.
    """
    import pandas as pd

    weight = n_cells / n_cells.sum()
    first, second = np.triu_indices(len(drugs), k=1)
    mean = np.zeros(len(first))
    for share, row in zip(weight, z):
        mean += share * np.minimum(row[first], row[second])
    single = weight @ z
    gain = np.minimum(single[first], single[second]) - mean
    kept = np.flatnonzero(gain > LEAST_GAIN)
    best = kept[np.argsort(mean[kept], kind="stable")[:n_pairs]]
    first, second, mean, gain = first[best], second[best], mean[best], gain[best]
    _, worst, _ = combine_clones(np.minimum(z[:, first], z[:, second]), n_cells)
    return pd.DataFrame(
        {
            "drug_1": [drugs[i] for i in first.tolist()],
            "drug_2": [drugs[i] for i in second.tolist()],
            "mean_z": mean,
            "worst_z": worst,
            "gain_over_best_single": gain,
            "note": NO_SYNERGY,
        }
    )
