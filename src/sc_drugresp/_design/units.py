"""The rows over which columns are compared with the label: one for each patient, two where a patient has both labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_ARRANGEMENTS = 10_000
_SLIPS = 0.1
"""A label that fewer cells of a patient carry is a slip, and the patient has the other one."""


@dataclass(frozen=True)
class UnitTable:
    """Independent units with their labels.

    Parameters
    ----------
    row_of_cell
        Row of each labeled cell; -1 for a few cells that contradict the rest of their patient.
    labels
        Label of each row, 0 or 1.
    units
        Name of the unit of each row.
    held
        Code of what is held out together with it.
    strata
        Code of the data set: labels are dealt out again within data sets only, as scores are computed within them.
    paired
        Whether the unit has a row of either label.
    """

    row_of_cell: np.ndarray
    labels: np.ndarray
    units: np.ndarray
    held: np.ndarray
    strata: np.ndarray
    paired: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, units: np.ndarray, held: np.ndarray, datasets: np.ndarray) -> UnitTable:
        """Build the table for labeled cells; each argument has one entry per cell."""
        names, unit = np.unique(units.astype(str, copy=False), return_inverse=True)
        share = np.bincount(unit, y) / np.bincount(unit)
        keep = np.where(y == 1, share[unit], 1 - share[unit]) >= _SLIPS
        key = unit * 2 + y
        rows, row = np.unique(key[keep], return_inverse=True)
        row_of_cell = np.full(len(y), -1)
        row_of_cell[keep] = row
        first = np.flatnonzero(keep)[np.unique(row, return_index=True)[1]]
        strata = np.unique(datasets, return_inverse=True)[1][first]
        if not any(len(np.unique(rows[strata == s] % 2)) == 2 for s in np.unique(strata)):
            strata = np.zeros(len(rows), dtype=int)  # every data set has one label: nothing can be dealt out within
        paired = np.bincount(rows // 2, minlength=len(names))[rows // 2] == 2
        return cls(
            row_of_cell,
            (rows % 2).astype(int),
            names[rows // 2],
            np.unique(held, return_inverse=True)[1][first],
            strata,
            paired,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Labeled cells that have a row, and their rows."""
        cells = np.flatnonzero(self.row_of_cell >= 0)
        return cells, self.row_of_cell[cells]

    def arrangements(self, strata: np.ndarray | None = None, n: int = N_ARRANGEMENTS) -> np.ndarray:
        """Labels dealt out again between units of a stratum and swapped within paired ones, the true ones first; `(n, rows)`."""
        rng = np.random.default_rng(0)
        blocks = self.strata if strata is None else np.unique(strata, return_inverse=True)[1]
        out = np.tile(self.labels.astype(float), (n, 1))
        for block in np.unique(blocks):
            members = np.flatnonzero((blocks == block) & ~self.paired)
            if len(np.unique(self.labels[members])) == 2:
                out[1:, members] = rng.permuted(out[1:, members], axis=1)
        for unit in np.unique(self.units[self.paired]):
            rows = np.flatnonzero((self.units == unit) & self.paired)
            if len(np.unique(blocks[rows])) == 1:
                swap = np.append(False, rng.random(n - 1) < 0.5)
                out[np.ix_(swap, rows)] = 1 - out[np.ix_(swap, rows)]
        return out
