"""One pass over a matrix for everything that `check` reports about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.progress import progress_bar
from .._core.settings import settings
from .._data.content import find_transform, probe, recover_counts
from .._data.counts import candidates

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData

    from .._data.content import Kind, Transform


@dataclass
class Scan:
    """What a matrix holds.

    Parameters
    ----------
    origin, kind, transform, var
        Which matrix was read, what its probed rows hold, how to get counts back, and its `.var`.
    looked_at
        Kind of every matrix that was probed.
    totals, detected
        Sum and number of non-zero genes of each cell.
    gene_totals
        Sum of each gene; of the counts where they can be recovered.
    n_nan, n_infinite, n_negative, n_fractions
        Stored values of that kind.
    n_unrecovered
        Cells whose counts cannot be recovered.
    """

    origin: str
    kind: Kind
    transform: Transform | None
    var: Any
    looked_at: list[tuple[str, Kind]]
    totals: np.ndarray
    detected: np.ndarray
    gene_totals: np.ndarray
    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractions: int = 0
    n_unrecovered: int = 0
    largest: float = 0.0

    @property
    def is_counts(self) -> bool:
        """The matrix holds counts in every cell, as they are or recovered."""
        clean = not (self.n_nan or self.n_infinite or self.n_negative)
        recovered = self.transform is not None and not self.n_unrecovered
        return clean and (recovered or (self.kind == "counts" and not self.n_fractions))


def scan(adata: AnnData, layer: str | None) -> Scan | None:
    """Choose the matrix that the tools would read, and read it once in blocks. `None` if there is none."""
    found = [(origin, rows, var, probe(rows)) for origin, rows, var in candidates(adata, layer)]
    if not found:
        return None
    transform: Transform | None = None
    chosen = next((item for item in found if item[3] == "counts"), None)
    if chosen is None:
        for item in found:
            transform = find_transform(item[1], item[3])
            if transform is not None:
                chosen = item
                break
    origin, rows, var, kind = chosen or next((item for item in found if item[0] == "X"), found[0])
    n, g = rows.shape
    out = Scan(
        origin=origin,
        kind=kind,
        transform=transform,
        var=var,
        looked_at=[(item[0], item[3]) for item in found],
        totals=np.zeros(n),
        detected=np.zeros(n, dtype=np.int64),
        gene_totals=np.zeros(g),
    )
    bar = progress_bar(total=n, desc="checking")
    try:
        for start, block in rows.blocks(settings.block_cells):
            _add(out, start, block)
            bar.update(block.shape[0])
    finally:
        bar.close()
    return out


def _add(out: Scan, start: int, block: Any) -> None:
    values = block.data
    if out.transform is not None:
        values, wrong = recover_counts(block, out.transform)
        out.n_unrecovered += len(wrong)
        values = np.nan_to_num(values)
    finite = np.isfinite(values)
    if not finite.all():
        out.n_nan += int(np.isnan(values).sum())
        out.n_infinite += int(np.isinf(values).sum())
        values = np.where(finite, values, 0)
    out.n_negative += int((values < 0).sum())
    out.n_fractions += int((values != np.rint(values)).sum())
    out.largest = max(out.largest, float(values.max(initial=0)))
    row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    stop = start + block.shape[0]
    out.totals[start:stop] = np.bincount(row, weights=values, minlength=block.shape[0])
    out.detected[start:stop] = np.diff(block.indptr)
    weights = np.expm1(np.clip(values, None, 80)) if out.kind == "log_normalized" and out.transform is None else values
    out.gene_totals += np.bincount(block.indices, weights=weights, minlength=block.shape[1])
