"""How a column relates to the label: which of its levels hold one class, and which hold both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._stats.groups import encode_groups, group_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class Aliasing:
    """How one column relates to the label, among labeled cells.

    `n_sensitive`, `n_resistant` and `n_mixed` count levels whose cells are all sensitive, all resistant, or both.
    """

    role: str
    n_levels: int
    n_sensitive: int
    n_resistant: int
    n_mixed: int

    @property
    def with_sensitive(self) -> int:
        """Levels with at least one sensitive cell."""
        return self.n_sensitive + self.n_mixed

    @property
    def with_resistant(self) -> int:
        """Levels with at least one resistant cell."""
        return self.n_resistant + self.n_mixed

    @property
    def determines_label(self) -> bool:
        """The label is a function of the column."""
        return self.n_levels > 1 and self.n_mixed == 0

    @property
    def aliased(self) -> bool:
        """A class stands on a single level of the column, and no level holds both classes."""
        return self.determines_label and min(self.n_sensitive, self.n_resistant) < 2


def aliasing(y: np.ndarray, column: np.ndarray, role: str = "") -> Aliasing:
    """Count the pure and mixed levels of a column; cells with `y < 0` have no label and are left out."""
    labeled = y >= 0
    codes, levels = encode_groups(column[labeled])
    mixed, sensitive, resistant = (
        int((group_classes(y[labeled], codes, len(levels)) == kind).sum()) for kind in (2, 1, 0)
    )
    return Aliasing(role, len(levels), sensitive, resistant, mixed)


def design_table(y: np.ndarray, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Count cells by every combination of the columns: `n_cells`, `n_sensitive`, `n_resistant`, `n_unlabeled`."""
    import pandas as pd

    frame = pd.DataFrame({role: values.astype(str) for role, values in columns.items()}, index=range(len(y)))
    frame = frame.assign(n_cells=1, n_sensitive=y == 1, n_resistant=y == 0, n_unlabeled=y < 0)
    if not columns:
        return frame.sum().to_frame().T.astype(int)
    return frame.groupby(list(columns), sort=True, as_index=False, observed=True).sum()


def nested(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Every level of `inner` lies within one level of `outer`."""
    pairs = np.unique(np.column_stack([inner.astype(str), outer.astype(str)]), axis=0)
    return len(pairs) == len(np.unique(pairs[:, 0]))
