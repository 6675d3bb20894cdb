"""Cells and patients that are there twice, under names that hide it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._stats.folds import hash_rows
from .._stats.groups import encode_groups
from .._stats.near_copies import find_near_copies
from .._stats.same_unit import find_same
from .quality import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._data import CountSource
    from .._stats.near_copies import NearCopies

COPIED = 0.5
"""Share of the cells of a patient from which near copies under another name mean that both are one patient."""
_NAMED = 3


@dataclass
class Doubles:
    """What is known of cells and patients that occur twice, among the labeled cells that `source` reads.

    Parameters
    ----------
    source
        Reader of the labeled cells.
    hashes
        Hash of each profile, see `profile_hashes`; once :meth:`join` has read the cells.
    qc
        What `qc_features` gives, measured while the cells pass.
    """

    source: CountSource
    hashes: np.ndarray = field(init=False)
    qc: np.ndarray = field(init=False)
    _near: NearCopies | None = field(default=None, init=False)
    _joined: list[str] = field(default_factory=list, init=False)

    def join(self, units: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Names of units of which those that are one patient share theirs, such as `'P01 = P07'`; `units` if there are none.

        Units that merely look alike are joined only if they have the same label: recognizing one could raise no score else.
        """
        codes, names = encode_groups(units)
        self.hashes, quality = np.zeros(self.source.n_obs, dtype=np.uint64), Quality(self.source)

        def blocks() -> Iterator[tuple[int, sparse.csr_matrix]]:
            for start, block in self.source.blocks():
                self.hashes[start : start + block.shape[0]] = hash_rows(block)
                quality.add(start, block)
                yield start, block

        self._near = find_near_copies(blocks, codes, self._rows, counts=self.source.kind == "counts")
        self.qc = quality.values()
        told = {
            pair: f"{share:.0%} of the cells are copies of each other"
            for pair, share in self._near.share(codes).items()
            if share >= COPIED
        }
        label = np.bincount(codes, y) / np.bincount(codes) > 0.5
        for a, b, auroc in find_same(codes, self._rows):
            if label[a] != label[b]:
                continue
            told.setdefault((min(a, b), max(a, b)), f"their cells cannot be told apart (AUROC {auroc:.2f})")
        if not told:
            return units
        links = sparse.coo_matrix((np.ones(len(told)), np.array(list(told)).T), shape=(len(names), len(names)))
        _, part = sparse.csgraph.connected_components(links, directed=False)
        together = np.array([" = ".join(names[part == p].astype(str)) for p in range(part.max() + 1)])
        self._joined = [f"{names[a]} and {names[b]} ({why})" for (a, b), why in told.items()]
        return together[part][codes]

    def same_hashes(self) -> np.ndarray:
        """Hashes in which near copies are equal."""
        return self.hashes if self._near is None else self._near.label(self.hashes)

    def cautions(self, units: np.ndarray) -> list[str]:
        """What was found, in words; `units` are those that were held out."""
        out = []
        if self._joined:
            more = f" and {len(self._joined) - _NAMED} further pairs" if len(self._joined) > _NAMED else ""
            out.append(
                f"Names that seem to be one patient are held out together and count once: "
                f"{'; '.join(self._joined[:_NAMED])}{more}. If they are different patients, check how the cells were pooled."
            )
        if self._near is None:
            return out
        pairs = self._near.pairs[units[self._near.pairs[:, 0]] != units[self._near.pairs[:, 1]]]
        if len(pairs):
            cells = np.unique(pairs)
            names = ", ".join(map(repr, np.unique(units[cells])[:_NAMED].tolist()))
            out.append(
                f"{len(cells)} cells are copies, or all but copies, of cells of another patient (among them cells of {names}); "
                "nobody knows whose they are, so that they are neither learned from nor tested."
            )
        if self._near.n_compared < len(units):
            out.append(
                f"Near copies were looked for among {self._near.n_compared} evenly spread cells of {len(units)}, each compared "
                "with all others."
            )
        return out

    def _rows(self, rows: np.ndarray) -> sparse.csr_matrix:
        return sparse.vstack([block for _, block in self.source.blocks(rows=rows)]).tocsr()
