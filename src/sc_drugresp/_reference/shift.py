"""`PlatformShift`: how values of a platform differ from those of bulk profiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PlatformShift:
    """How values of one platform differ from those of the lines of a reference, gene by gene.

    Parameters
    ----------
    chemistry
        Name of the platform, such as `'dropseq'`.
    values
        Mean difference per gene of the reference, on the scale of expression standardized within the sample; NaN where
        a gene was not measured. Shape `(n_genes,)`, float32.
    lines
        Lines that it was measured in.
    source
        What it was computed from.
    deviations
        What is left of the difference of each line after the shift of the other lines is taken off, shape `(n_lines, n_genes)`,
        float32: what a new sample on this platform may differ by. `None` counts as nothing.
    """

    chemistry: str
    values: np.ndarray
    lines: tuple[str, ...]
    source: str = ""
    deviations: np.ndarray | None = None

    def __repr__(self) -> str:
        n = int(np.isfinite(self.values).sum())
        return f"PlatformShift({self.chemistry!r}, {n} genes, {len(self.lines)} lines)"
