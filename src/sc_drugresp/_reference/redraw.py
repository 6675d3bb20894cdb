"""How far P(sensitive) of a group rests on the cells that happen to be in it, and what single cells are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .align import log_cpm, standardize, within_sample
from .chance import below, probability
from .pseudobulk import gene_places, linear_blocks, pseudobulk

if TYPE_CHECKING:
    from .._data.counts import CountSource
    from .reference import Reference

N_REDRAWN = 40
MOST_ROWS = 4_000
"""Redrawn groups that are held at once."""
LEVEL = 0.9
"""Of the interval of P(sensitive)."""


def redrawn_probability(
    reference: Reference,
    source: CountSource,
    codes: np.ndarray,
    n_groups: int,
    drug: str,
    chemistry: str | None,
    *,
    rng: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of P(sensitive) of each group over other draws of its cells, shape `(n_groups,)` each.

    Cells are redrawn with Poisson weights (Hanley & MacGibbon, 2006). NaN without a known platform.

    Parameters
    ----------
    reference
        The model.
    source
        The cells.
    codes, n_groups
        Group of each cell, -1 for none, and their number.
    drug
        Its name in the reference.
    chemistry
        Platform.
    rng
        Seed.
    """
    shift = reference.shifts.get(chemistry) if chemistry is not None else None
    if shift is None:
        return np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    n_draws = max(min(N_REDRAWN, MOST_ROWS // max(n_groups, 1)), 10)
    generator = np.random.default_rng(rng)
    bulk = pseudobulk(
        source, reference.genes, codes, n_groups, n_draws=n_draws, draw=lambda shape: generator.poisson(1.0, shape)
    )
    out = np.full(n_draws * n_groups, np.nan)
    drawn = bulk.totals > 0  # a group of few cells may be drawn empty
    response = _response(reference, bulk.values[drawn], bulk.seen, drug, shift.values)
    j = list(reference.drugs.index).index(drug)
    limit = reference.drugs["sensitive_below"].to_numpy()[j : j + 1]
    share = below(response[:, None], reference.errors_on(shift)[j : j + 1], limit)[:, 0]
    out[drawn] = probability(share, reference.recalibration)
    return tuple(np.nanquantile(out.reshape(n_draws, n_groups), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))


def cell_scores(
    reference: Reference, source: CountSource, keep: np.ndarray, drug: str, chemistry: str | None, *, rng: int
) -> tuple[np.ndarray, float]:
    """`z` of single cells, shape `(n_cells,)`, NaN for cells that are left out, and its split-half reliability.

    Counts of each cell are divided into two halves at random; the correlation of their scores over cells, brought to the
    full depth by the formula of Spearman and Brown, says which share of the variance between cells is no noise of counting.
    NaN where the matrix holds no counts.

    Parameters
    ----------
    reference, source, drug, chemistry, rng
        As in :func:`redrawn_probability`.
    keep
        Cells to score, shape `(n_cells,)`, bool.
    """
    shift = reference.shifts.get(chemistry) if chemistry is not None else None
    values, place = None if shift is None else shift.values, gene_places(source, reference.genes)
    seen = np.zeros(len(reference.genes), dtype=bool)
    seen[place.indices] = True
    generator = np.random.default_rng(rng)
    z, halves = np.full(source.n_obs, np.nan), np.full((2, source.n_obs), np.nan)
    for start, block in linear_blocks(source):
        rows = start + np.arange(block.shape[0])
        parts = [(z, block)]
        if source.kind == "counts":
            first = block.copy()
            first.data = generator.binomial(block.data.astype(np.int64), 0.5).astype(np.float64)
            parts += [(halves[0], first), (halves[1], block - first)]
        for out, counts in parts:
            sums = (counts @ place).toarray()
            usable = keep[rows] & (sums.max(axis=1) > sums.min(axis=1))
            cells = log_cpm(sums[usable], np.asarray(counts.sum(axis=1)).ravel()[usable])
            if usable.any():
                out[rows[usable]] = _response(reference, cells, seen, drug, values)
    card = reference.drugs.loc[drug]
    both = np.isfinite(halves).all(axis=0)
    if both.sum() < 3:
        return (z - card["mean"]) / card["spread"], float("nan")
    r = float(np.corrcoef(halves[:, both])[0, 1])
    return (z - card["mean"]) / card["spread"], 2 * r / (1 + r) if r > 0 else 0.0


def _response(
    reference: Reference, values: np.ndarray, seen: np.ndarray, drug: str, shift: np.ndarray | None
) -> np.ndarray:
    j = reference.drugs.index.get_loc(drug)
    Z = standardize(within_sample(values, seen, reference.scale), reference.scale, shift)
    return Z @ reference.weights[:, j] + reference.intercept[j]
